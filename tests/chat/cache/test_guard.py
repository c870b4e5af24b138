"""Pairs of questions that an embedding takes for one another: which of them may share an answer."""

import pytest

from terrace.chat.cache.guard import same_meaning

SAME = [
    ("How deep is the quay?", "how deep is the quay"),
    ("What is the refund policy?", "What's the refund policy?"),
    ("Please tell me the depth of the quay in Bergen.", "What is the depth of the quay in Bergen?"),
    ("How deep is Bergen's quay?", "How deep is the quay of Bergen?"),
    ("what did ada lovelace write", "What did Ada Lovelace write?"),
    ("Who signed the 2023 contract?", "The contract of 2023: who signed it?"),
    ("Why isn't the lock open?", "Why is the lock not open?"),
    ('Where is "Form 27" kept?', "Where is “Form 27” kept?"),
    ("Wie tief ist der Kai?", "wie tief ist der Kai"),
    ("What does the NASA report say about ice?", "What is said about ice in the NASA report?"),
]

DIFFERENT = [
    ("What was the revenue in 2023?", "What was the revenue in 2024?"),
    ("Who may enter?", "Who may not enter?"),
    ("Is the lock open?", "Isn't the lock open?"),
    ("Which ships can enter?", "Which ships cannot enter?"),
    ("What is the fee with insurance?", "What is the fee without insurance?"),
    ("How deep is the quay in Bergen?", "How deep is the quay in Oslo?"),
    ("how deep is the quay in Bergen", "how deep is the quay in oslo"),
    ("Berlin has how many people?", "Munich has how many people?"),
    ("What did Ada say?", "What did Bob say?"),
    ("What must be done before the inspection?", "What must be done after the inspection?"),
    ("What is the minimum depth?", "What is the maximum depth?"),
    ("What are the first three steps?", "What are the last three steps?"),
    ("Give me two reasons.", "Give me three reasons."),
    ("When did the contract end?", "Where did the contract end?"),
    ("What costs 1,500 euros?", "What costs 15,00 euros?"),
    ('What does "quay" mean?', 'What does "key" mean?'),
    ("Explain `git pull`.", "Explain `git push`."),
    ("What changed in version 1.2?", "What changed in version 1.3?"),
    ("Sales in January?", "Sales in June?"),
    ("Ist der Kai offen?", "Ist der Kai nicht offen?"),
    ("How do I enable logging?", "How do I disable logging?"),
    ("What is the US limit?", "What is the UK limit?"),
    ("What does section 4a say?", "What does section 4b say?"),
    ("Is it dearer on Monday?", "Is it dearer on Friday?"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_another_wording_may_have_the_same_answer(one: str, other: str) -> None:
    assert same_meaning(one, other)
    assert same_meaning(other, one)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_turns_an_answer_around_makes_another_question(one: str, other: str) -> None:
    assert not same_meaning(one, other)
    assert not same_meaning(other, one)
    assert same_meaning(one, one)
