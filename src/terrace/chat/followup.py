"""What to search for when a question leans on the one before it.

"And in 2021?" finds nothing by itself. A question leans when it is short and points back: a pronoun or demonstrative
among its first words, or a beginning such as "and", "what about", "why". Its predecessor's words are then searched for
with its own. No model is asked: that would double the wait for the first word.
"""

import re
from collections.abc import Sequence

from terrace.chat.base import Turn

SHORT_WORDS = 14
FIRST_WORDS = 8
TINY_WORDS = 3
CHAIN = 3  # how many questions back
QUERY_CHARS = 2000

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_POINTERS = """
it its he him his she her they them their this that these those there one ones former latter same both
er ihn ihm ihr sie es deren dessen dieser diese dieses diesen diesem davon darin dafür damit dazu dort
il elle ils elles lui leur leurs celui celle ceux cela ça cette ces ce son sa ses y
él ella ellos ellas esto eso ese esa estos estas su sus lo
"""
_POINTING = frozenset(_POINTERS.split())
_GOING_ON = re.compile(
    r"(?:and|but|or|so|also|then|what about|how about|how so|since when|go on|continue|und|aber|oder|auch|was ist mit|"
    r"et|mais|ou|y|pero)\b",
    re.IGNORECASE,
)
_ASKING = re.compile(
    r"(?:why|who|when|where|which ones?|more|explain|warum|wieso|wer|wann|wo|pourquoi|qui|quand|por qué)\b",
    re.IGNORECASE,
)
_WEIGHTY = 5  # letters; "why" and such begin whole questions too, unless at most one word of weight follows


def search_query(question: str, history: Sequence[Turn]) -> str:
    """The words to search for: the question's, and those of the questions it leans on."""
    parts = [question]
    for turn in reversed([turn for turn in history if turn.role == "user"][-CHAIN:]):
        if not leans(parts[0]):
            break
        parts.insert(0, turn.content)
    return _bounded("\n".join(parts))


def leans(question: str) -> bool:
    words = _WORD.findall(question.lower())
    if not words or len(words) > SHORT_WORDS:
        return False
    if len(words) <= TINY_WORDS and not any(word[:1].isupper() for word in _WORD.findall(question)[1:]):
        return True
    pointing = any(word.split("'")[0].split("’")[0] in _POINTING for word in words[:FIRST_WORDS])
    asking = bool(_ASKING.match(question.strip())) and sum(len(word) >= _WEIGHTY for word in words) <= 1
    return pointing or asking or bool(_GOING_ON.match(question.strip()))


def _bounded(text: str) -> str:
    """A very long message says what it wants at its beginning or its end."""
    half = QUERY_CHARS // 2
    return text if len(text) <= QUERY_CHARS else f"{text[:half]}\n{text[-half:]}"
