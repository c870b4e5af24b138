"""From what a person typed to an FTS5 query no input can break: plain words, each quoted, any of them."""

import re
import unicodedata

MAX_TERMS = 48
MAX_WORD = 64

_WORD = re.compile(r"[^\W_]+")

# English; then what German, French and Spanish add, without words that mean something in English ("die", "war").
_STOP = """
    a about above after again against all am an and any are aren as at be because been before being below
    between both but by can cannot could couldn d did didn do does doesn doing don down during each either else
    ever few for from further had hadn has hasn have haven having he her here hers herself him himself his how i
    if in into is isn it its itself just like ll m me might more most much must my myself neither no nor not of
    off on once only onto or other ought our ours ourselves out over own per please re s same shall she should
    shouldn so some such t tell than that the their theirs them themselves then there these they this those
    through to too under until up upon ve very via was wasn we were weren what whatever when where whether which
    while who whom whose why with within without won would wouldn yet you your yours yourself yourselves

    aber al als au auch auf aus aux avec bei bis bist ce ces cette como con cuando cuál da damit dann dans das
    dass de del dem der des donde du ein eine einem einen einer eines el ella elle en entre er era es est esta
    este et eux fue für ha hatte hay ich ihr il ils im ist ja je kann la las le les leur lo los lui mais mein
    mit muy más nach ne nicht noch nos notre nous nur o ob oder ohne ou où para pas pero por porque qu que quel
    quelle qui quién qué sa se sein ser ses si sich sie sind sobre sont su sur sus también um una und une uns
    vom von vor vos votre vous wann warum wer werden wie wir wird wo y zu zum zur
"""
STOP_WORDS = frozenset(_STOP.split())


def words(text: str) -> list[str]:
    """Lower-cased words in order, compatibility forms folded; control and format characters separate them."""
    return [word[:MAX_WORD] for word in _WORD.findall(unicodedata.normalize("NFKC", text).lower())]


def content_words(text: str) -> list[str]:
    """Distinct words that carry meaning, in order; all of them when none does ("the who")."""
    distinct = list(dict.fromkeys(words(text)))
    return [word for word in distinct if word not in STOP_WORDS] or distinct


def match_expression(text: str) -> str:
    """An FTS5 query for any of the content words of `text`; empty when it has none."""
    return " OR ".join(f'"{word}"' for word in content_words(text)[:MAX_TERMS])
