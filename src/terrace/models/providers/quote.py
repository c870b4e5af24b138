"""The built-in model: no weights, it answers in words that stand in the documents."""

from collections.abc import AsyncGenerator, Iterator, Sequence

from terrace.errors import Invalid
from terrace.models.base import ChatRequest, Delta, Embeddings, ModelInfo, RankedSentence, SentenceRanker, TextDelta
from terrace.models.providers.ending import Ending

MAX_SENTENCES = 3
CLOSE_TO_BEST = 0.6  # a further sentence is quoted when it scores at least this share of the best one
MAX_QUESTION_CHARS = 4000
MAX_QUOTE_CHARS = 600
PIECE_CHARS = 24

INTRODUCTION = (
    "I am Terrace's built-in quote model. I have no language model behind me: I answer questions by quoting the "
    "sentences of your documents that answer best. Add documents and ask about them, or connect a model for free "
    "conversation: start Ollama and fetch one with `ollama pull llama3.2`, or set OPENAI_API_KEY or "
    "ANTHROPIC_API_KEY and start Terrace again."
)
NOTHING_FOUND = "Your documents hold no sentence that answers this. Try other words, or add a document that does."

NEAREST = "No sentence of your documents clearly answers this. The nearest:"


class Quote:
    def __init__(self, name: str, ranker: SentenceRanker) -> None:
        self._name = name
        self._ranker = ranker

    @property
    def name(self) -> str:
        return self._name

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo(id=self._name, provider=self._name, name=self._name, vision=False)]

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        ending = Ending(request)
        for piece in _pieces(await self._answer(request)):
            delta = TextDelta(piece)
            ending.saw(delta)
            yield delta
        for last in ending.deltas():
            yield last

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        raise Invalid("The quote model makes no embeddings.", code="no_embeddings")

    async def close(self) -> None:
        """Nothing is open."""

    async def _answer(self, request: ChatRequest) -> str:
        if not request.passages:
            return INTRODUCTION
        question = _question(request)
        ranked = await self._ranker.rank(question, request.passages, request.scope) if question else []
        chosen = _choose(ranked)
        if not chosen:
            return NOTHING_FOUND
        if chosen[0].doubtful:
            return f"{NEAREST}\n\n{_quoted(chosen[0])}"
        return "\n\n".join(map(_quoted, chosen))


def _question(request: ChatRequest) -> str:
    """The last thing the user said."""
    for message in reversed(request.messages):
        if message.get("role") == "user":
            content = message.get("content")
            parts = content if isinstance(content, list) else [{"text": content}]
            texts = (part.get("text") for part in parts if isinstance(part, dict))
            return " ".join(text for text in texts if isinstance(text, str))[:MAX_QUESTION_CHARS].strip()
    return ""


def _choose(ranked: Sequence[RankedSentence]) -> list[RankedSentence]:
    """The best sentence and those nearly as good, each only once."""
    chosen: dict[str, RankedSentence] = {}
    least = ranked[0].score - (1 - CLOSE_TO_BEST) * abs(ranked[0].score) if ranked else 0.0  # a best may be below zero
    for sentence in ranked:
        if sentence.text.strip() and sentence.score >= least:
            chosen.setdefault(" ".join(sentence.text.lower().split()), sentence)
        if len(chosen) == MAX_SENTENCES:
            break
    return list(chosen.values())


def _quoted(sentence: RankedSentence) -> str:
    """The sentence in quotation marks with its source; a very long one ends at a word, not in the middle."""
    text = sentence.text.strip()
    if len(text) > MAX_QUOTE_CHARS:
        text = text[:MAX_QUOTE_CHARS].rsplit(None, 1)[0]
    return f"“{text}” [{sentence.passage}]"


def _pieces(text: str) -> Iterator[str]:
    """As a model would send it: a few words at a time, nothing lost."""
    start = 0
    while start < len(text):
        end = text.find(" ", start + PIECE_CHARS)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end
