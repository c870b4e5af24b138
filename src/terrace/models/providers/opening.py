"""Which provider a setting's `kind` means."""

from collections.abc import Sequence

from terrace.errors import Invalid
from terrace.models.base import Provider, SentenceRanker
from terrace.models.providers.anthropic import Anthropic
from terrace.models.providers.llamacpp import LlamaCpp
from terrace.models.providers.ollama import Ollama
from terrace.models.providers.openai import OpenAI
from terrace.models.providers.quote import Quote
from terrace.models.providers.upstream import Address, Upstream
from terrace.models.transport.base import Transport
from terrace.settings import Models
from terrace.settings import Provider as ProviderSettings

BASE_URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
TITLES = {"openai": "OpenAI", "anthropic": "Anthropic", "ollama": "Ollama"}


def open_provider(
    name: str, provider: ProviderSettings, settings: Models, transport: Transport, ranker: SentenceRanker
) -> Provider:
    """Asks nobody anything yet. Raises Invalid for settings that can't work."""
    if provider.kind == "quote":
        return Quote(name, ranker)
    if provider.kind == "llamacpp":
        if provider.path is None:
            raise Invalid(f"The provider `{name}` needs the path of a GGUF file (models.providers.{name}.path).")
        return LlamaCpp(name, provider.path, transport)
    upstream = _upstream(name, provider, settings, transport)
    if provider.kind == "ollama":
        return Ollama(name, upstream)
    return Anthropic(name, upstream) if provider.kind == "anthropic" else OpenAI(name, upstream)


def _upstream(name: str, provider: ProviderSettings, settings: Models, transport: Transport) -> Upstream:
    default = BASE_URLS.get(provider.kind, settings.ollama_url)
    address = Address.of(name, provider.base_url or default)
    key = provider.api_key.get_secret_value().strip()
    if not key.isascii() or not key.isprintable():
        raise Invalid(f"The api_key of the provider `{name}` holds characters that no key has.")
    is_vendor = address.url == BASE_URLS.get(provider.kind)
    return Upstream(
        label=TITLES[provider.kind] if is_vendor else f"{TITLES.get(name, f'`{name}`')} at {address.url}",
        base_url=address.url.removesuffix("/v1") if provider.kind == "anthropic" else address.url,
        headers=_headers(provider.kind, key, address.authorization),
        transport=transport,
        secrets=tuple(filter(None, (key, address.authorization))),
        first_byte_timeout=settings.first_token_timeout,
        idle_timeout=settings.idle_timeout,
    )


def _headers(kind: str, key: str, authorization: str) -> Sequence[tuple[bytes, bytes]]:
    if kind == "anthropic":
        version = ((b"anthropic-version", b"2023-06-01"),)
        return (*version, (b"x-api-key", key.encode())) if key else version
    value = f"Bearer {key}" if key else authorization
    return ((b"authorization", value.encode()),) if value else ()
