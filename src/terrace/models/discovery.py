"""Which providers there are: those configured, else those the environment has keys for; a local Ollama; quote."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr

from terrace.errors import Invalid
from terrace.settings import Models, Provider

Origin = Literal["configured", "key", "local", "builtin"]

OLLAMA_PORT = 11434


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that may answer, and how we came by it. Candidates are listed best first."""

    name: str
    settings: Provider
    origin: Origin


def candidates(settings: Models, environ: Mapping[str, str]) -> list[Candidate]:
    """Raises Invalid for a provider whose name cannot be part of `<provider>/<model>`."""
    found = [Candidate(_checked(name), each, "configured") for name, each in settings.providers.items()]
    taken = {each.name for each in found} | {"quote"}
    if settings.discover:
        local = Candidate("ollama", Provider(kind="ollama", base_url=ollama_url(settings, environ)), "local")
        keyed = [] if any(each.settings.kind != "quote" for each in found) else _keyed(environ)
        has_ollama = any(each.settings.kind == "ollama" for each in found)
        found += [each for each in (*keyed, *(() if has_ollama else (local,))) if each.name not in taken]
    if not any(each.settings.kind == "quote" for each in found):
        found.append(Candidate("quote", Provider(kind="quote"), "builtin"))
    return found


def ollama_url(settings: Models, environ: Mapping[str, str]) -> str:
    """Where to look for Ollama: the setting if it was set, else `OLLAMA_HOST` read as Ollama itself reads it
    (`host`, `host:port`, `:port` or a URL; an address to listen on means this machine), else the default."""
    host = environ.get("OLLAMA_HOST", "").strip().rstrip("/")
    if not host or settings.ollama_url != Models.model_fields["ollama_url"].default:
        return settings.ollama_url
    scheme, _, rest = host.rpartition("://")
    authority, slash, path = rest.partition("/")
    name, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):  # no port: an URL means its scheme's own
        name, port = authority, {"http": "80", "https": "443"}.get(scheme, str(OLLAMA_PORT))
    name = "127.0.0.1" if name in ("", "0.0.0.0", "[::]") else name
    return f"{scheme or 'http'}://{name}:{port}{slash}{path}"


def _keyed(environ: Mapping[str, str]) -> list[Candidate]:
    found = []
    if environ.get("OPENAI_API_KEY") or environ.get("OPENAI_BASE_URL"):
        found.append(_from_environment("openai", "openai", environ))
    if environ.get("ANTHROPIC_API_KEY"):
        found.append(_from_environment("anthropic", "anthropic", environ))
    return found


def _from_environment(name: str, kind: Literal["openai", "anthropic"], environ: Mapping[str, str]) -> Candidate:
    prefix = kind.upper()
    key = SecretStr(environ.get(f"{prefix}_API_KEY", "").strip())
    return Candidate(name, Provider(kind=kind, api_key=key, base_url=environ.get(f"{prefix}_BASE_URL", "")), "key")


def _checked(name: str) -> str:
    if not name or "/" in name or ":" in name or name in ("auto", "rag"):
        raise Invalid(f"`{name}` can't be a provider's name: choose one without `/` and `:`, not `auto` or `rag`.")
    return name
