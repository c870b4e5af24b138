"""Settings that let in more than the operator may have meant to, or keep somebody out."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from terrace.settings import Settings
from terrace.types import Finding


def examine(settings: Settings, *, accounts: bool) -> list[Finding]:
    """`accounts`: whether there is one."""
    told = [*_doors(settings, accounts), *_secrets(settings), *_neighbours(settings)]
    return [Finding("accounts", code, message, subject, repairable=False) for code, subject, message in told]


Told = Iterator[tuple[str, str, str]]
"""(code, the setting, a sentence)"""


def _doors(settings: Settings, accounts: bool) -> Told:
    beyond = not _loopback(settings.host)
    public = settings.web.public_url
    if settings.insecure and not accounts:
        yield "nobody_logs_in", "TERRACE_INSECURE", "Anybody who reaches the address can read and change everything."
    if beyond and not accounts and not settings.insecure:
        yield "no_owner", "TERRACE_HOST", "There is no account yet: whoever has the setup code becomes the owner."
    if beyond and settings.accounts.registration == "open":
        yield "open_registration", "TERRACE_ACCOUNTS__REGISTRATION", "Anybody who reaches the address may register."
    if beyond and not public.startswith("https://"):
        yield (
            "plain_http", "TERRACE_WEB__PUBLIC_URL",
            "Passwords and keys cross the network in the clear unless a proxy with TLS stands in front; name its "
            "https address.",
        )  # fmt: skip
    if "*" in settings.web.cors_origins:
        yield (
            "any_origin",
            "TERRACE_WEB__CORS_ORIGINS",
            "`*` is no origin: name the sites whose pages may call the API.",
        )
    for network in settings.web.trusted_proxies:
        if _wide(network):
            yield (
                "any_proxy", "TERRACE_WEB__TRUSTED_PROXIES",
                f"{network} covers strangers too, who can then claim any address. Name the proxy's own.",
            )  # fmt: skip


def _secrets(settings: Settings) -> Told:
    for subject, path in (
        ("TERRACE_DATA", settings.data),
        ("TERRACE_ACCOUNTS__SECRET_FILE", settings.accounts.secret_file),
    ):
        if path is not None and path.exists() and path.stat().st_mode & (0o067 if path.is_dir() else 0o077):
            yield "readable_by_others", subject, f"{path} can be read by other people of this machine: chmod go= it."


def _neighbours(settings: Settings) -> Told:
    for name, provider in settings.models.providers.items():
        if provider.api_key.get_secret_value() and _plain(provider.base_url):
            yield (
                "key_in_the_clear", f"TERRACE_MODELS__PROVIDERS__{name.upper()}__BASE_URL",
                f"The key of `{name}` is sent over plain http. Use https.",
            )  # fmt: skip
    for name, oidc in settings.accounts.oidc.items():
        if _plain(oidc.issuer):
            yield (
                "oidc_in_the_clear", f"TERRACE_ACCOUNTS__OIDC__{name.upper()}__ISSUER",
                f"Logins by `{name}` go over plain http: anybody between may log in as anybody. Use https.",
            )  # fmt: skip
    smtp = settings.accounts.smtp
    if smtp.host and smtp.security == "none" and not _loopback(smtp.host):
        yield "mail_in_the_clear", "TERRACE_ACCOUNTS__SMTP__SECURITY", "Links to new passwords are mailed in the clear."
    if smtp.host and not settings.web.public_url:
        yield (
            "mail_without_links", "TERRACE_WEB__PUBLIC_URL",
            "Nobody who forgot a password is mailed a link to a new one: the link needs the address people reach.",
        )  # fmt: skip


def _plain(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and not _loopback(parts.hostname or "")


def _wide(network: str) -> bool:
    try:
        return ip_network(network, strict=False).prefixlen < 8
    except ValueError:
        return True


def _loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
