"""Which model `auto` means now, and the sentences that say why."""

from collections.abc import Sequence
from dataclasses import dataclass

from terrace.models.base import ModelInfo
from terrace.models.catalog import Entry
from terrace.models.walls import permits
from terrace.types import Scope

# For a key alone: the provider's middle model, quick and not dear. Matched as a beginning, the first listed wins.
PREFERRED = {
    "openai": ("gpt-5-mini", "gpt-4.1-mini", "gpt-4o-mini", "gpt-"),
    "anthropic": ("claude-sonnet", "claude-"),
}
CONNECT = (
    "Start Ollama (https://ollama.com) and fetch a model with `ollama pull llama3.2`, or set OPENAI_API_KEY or "
    "ANTHROPIC_API_KEY and start Terrace again."
)
FETCH = (
    "Ollama is running but has no chat model: fetch one with `ollama pull llama3.2` or "
    "`terrace models --pull llama3.2`."
)


@dataclass(frozen=True, slots=True)
class Answering:
    """What answers when a request names no model. `advice` says how to connect a better one, or mend this one."""

    model: str
    why: str
    advice: str | None = None


def choose(entries: Sequence[Entry], scope: Scope = Scope()) -> tuple[Entry, ModelInfo] | None:
    """The best model of the first provider that is there and has one that the caller may use."""
    for entry in entries:
        chats = [info for info in entry.chat_models if permits(scope, info.id)] if entry.state == "ok" else []
        if chats:
            return entry, _preferred(entry, chats)
    return None


def explain(entry: Entry, info: ModelInfo, entries: Sequence[Entry]) -> Answering:
    """Why `choose` chose it."""
    better = entries[: list(entries).index(entry)]
    missed = [each for each in better if _missed(each)]
    away = " ".join(f"`{each.name}` does not answer: {each.why}" for each in missed)
    mend = f"To use `{missed[0].name}`, mend it." if missed else None
    if entry.kind == "quote":
        why = "No model is connected, so the built-in quote model answers: it quotes what your documents say."
        silent = any(each.kind == "ollama" and each.state == "ok" for each in entries)
        return Answering(info.id, f"{why} {away}".strip(), mend or (FETCH if silent else CONNECT))
    why = {
        "configured": f"It is the first model of the provider `{entry.name}`, which is configured.",
        "key": f"It is chosen because the environment holds a key for `{entry.name}`.",
        "local": "Ollama runs on this machine, and this is the chat model it fetched last.",
        "builtin": "It is built in.",
    }[entry.origin]
    return Answering(info.id, f"{why} {away}".strip(), mend)


def explain_default(model: str, entry: Entry) -> Answering:
    """When models.default names one."""
    if entry.state == "unreachable":
        why = f"It is the default model (models.default), but it can't answer now: {entry.why}"
        return Answering(model, why, "Start its provider, or name another model in TERRACE_MODELS__DEFAULT.")
    return Answering(model, "It is the default model (models.default).")


def explain_unknown(model: str, why: str) -> Answering:
    """When models.default names one that there is not, or several that there are."""
    said = f"It is the default model (models.default), but no question can be answered by it: {why}"
    return Answering(model, said, "Name another model in TERRACE_MODELS__DEFAULT, or none.")


def _missed(entry: Entry) -> bool:
    """Worth a sentence: an Ollama that nobody said was there is not."""
    return entry.state == "unreachable" and entry.origin != "local"


def _preferred(entry: Entry, chats: Sequence[ModelInfo]) -> ModelInfo:
    if entry.origin == "key":
        for beginning in PREFERRED.get(entry.kind, ()):
            for info in chats:
                if info.name.startswith(beginning):
                    return info
    return chats[0]
