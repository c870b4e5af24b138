"""Whether two questions that mean about the same may have the same answer.

Embeddings hardly tell "2023" from "2024", "is" from "is not", or one name from another. So before a stored answer is
given for another wording, what turns an answer around must agree: numbers, negations and their like, names, what stands
in quotation marks. Two wordings that differ there are two questions, whatever their cosine.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

_WORD = re.compile(r"[^\W_]+(?:['’.\-][^\W_]+)*")
_NUMBER = re.compile(r"\d+(?:[.,:/\-]\d+)*")
_QUOTED = re.compile(r"\"([^\"]{1,200})\"|“([^”]{1,200})”|«([^»]{1,200})»|`([^`]{1,200})`|(?<!\w)'([^']{1,200})'(?!\w)")
_NT = re.compile(r"n['’]t$")

_NUMBERS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion dozen half quarter third
first second last next previous once twice double triple both
null zwei drei vier fünf sechs sieben acht neun zehn elf zwölf hundert tausend erste zweite dritte letzte
deux trois quatre cinq sept huit neuf dix cent mille premier première dernier dernière
dos tres cuatro cinco seis siete ocho nueve diez cien mil primero primera último última
"""
_TURNING = """
not no none nobody nothing nowhere never neither nor without cannot except unless hardly instead
nicht kein keine keinen keiner nie niemals ohne weder pas jamais aucun aucune sans rien sin nunca jamás nada ningún
before after above below over under more less most least fewer minimum maximum min max earliest latest highest lowest
best worst increase decrease increases decreases increased decreased rise fall up down left right north south east west
start end begins ends open closed opens closes add remove enable disable enabled disabled allow deny allowed forbidden
include exclude included excluded with buy sell import export upload download input output inbound outbound send receive
accept reject accepted rejected pass fail true false old new men women man woman male female
today yesterday tomorrow monday tuesday wednesday thursday friday saturday sunday daily weekly monthly yearly annual
january february march april may june july august september october november december
who whom whose when where why advantages disadvantages pros cons
vor nach über unter mehr weniger avant après plus moins antes después más menos
"""
_STARTING = """
    a an and any are at by can could did do does explain find for from give had has have how i if in is it list may me
    my of on or our please shall should show so summarise summarize tell that the their there these this those to was we
    were what what's when where which who who's whose why will with would you your
    der die das ein eine wie was wer wo wann warum welche welcher welches ist sind kann hat gibt
    le la les un une quel quelle quels quelles qui que quoi où quand comment pourquoi est sont combien
    el los las qué cuál quién dónde cuándo cómo por es son cuánto
"""
_STARTERS = frozenset(_STARTING.split())
_COUNTED = frozenset(_NUMBERS.split())
_HINGES = frozenset(_TURNING.split())


@dataclass(frozen=True, slots=True)
class Marks:
    """What must agree between two wordings of one question."""

    numbers: Counter[str]
    hinges: Counter[str]
    names: frozenset[str]
    quoted: Counter[str]
    words: frozenset[str]


def same_meaning(first: str, second: str) -> bool:
    """Whether nothing that turns an answer around differs."""
    one, other = marks(first), marks(second)
    return (
        one.numbers == other.numbers
        and one.hinges == other.hinges
        and one.quoted == other.quoted
        and one.names <= other.words
        and other.names <= one.words
    )


def marks(question: str) -> Marks:
    text = unicodedata.normalize("NFKC", question)
    quoted = Counter(next(filter(None, groups)).casefold().strip() for groups in _QUOTED.findall(text) if any(groups))
    found = _WORD.findall(text)
    words = [_bare(word) for word in found]
    numbers = Counter(_NUMBER.findall(text))
    numbers.update(word for word in words if word in _COUNTED)
    hinges = Counter(word for word in words if word in _HINGES)
    hinges["not"] += sum(bool(_NT.search(word.casefold())) for word in found)
    names = {_bare(word) for place, word in enumerate(found) if _is_name(word, first=place == 0)}
    return Marks(numbers, +hinges, frozenset(names), quoted, frozenset(words))


def _bare(word: str) -> str:
    """Without case and without a genitive."""
    return re.sub(r"['’]s$", "", word.casefold())


def _is_name(word: str, *, first: bool) -> bool:
    """What has a capital letter or mixes letters and digits (4b), but for words that any sentence may begin with."""
    if any(char.isdigit() for char in word):
        return any(char.isalpha() for char in word)
    if not any(char.isupper() for char in word):
        return False
    inner = any(char.isupper() for char in word[1:])
    return inner or not ((first or word == "I") and word.casefold() in _STARTERS)
