"""What a key may be given, in words: permissions and families of them, patterns of models, networks."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from terrace.accounts.roles import FAMILIES, PERMISSIONS, Permission
from terrace.errors import Invalid

MAX_ITEMS = 100  # scopes, patterns or networks of one key
MAX_PATTERN = 200

Network = IPv4Network | IPv6Network


def expand(scopes: Iterable[str]) -> frozenset[Permission]:
    """The permissions they stand for; words that there are no more stand for none."""
    named: set[Permission] = {permission for permission in PERMISSIONS if permission in scopes}
    return frozenset(named.union(*(FAMILIES[each] for each in scopes if each in FAMILIES)))


def scopes_of(given: Iterable[str]) -> list[str]:
    """Raises Invalid."""
    scopes = _some(given, "scopes")
    for each in scopes:
        if each not in PERMISSIONS and each not in FAMILIES:
            known = ", ".join(sorted({*PERMISSIONS, *FAMILIES}))
            raise Invalid(f"There is no scope {each[:50]!r}. There are: {known}.", code="bad_scope")
    return scopes


def patterns_of(given: Iterable[str]) -> list[str]:
    """Names of models in which `*` stands for anything. Raises Invalid."""
    patterns = _some(given, "models")
    for each in patterns:
        if not each.isprintable() or not 0 < len(each) <= MAX_PATTERN or each != each.strip():
            raise Invalid(f"A model is named by 1 to {MAX_PATTERN} visible characters.", code="bad_model_pattern")
    return patterns


def networks_of(given: Iterable[str]) -> list[str]:
    """As they are written normally. Raises Invalid.

    >>> networks_of(["10.0.0.7", "192.168.1.0/24"])
    ['10.0.0.7/32', '192.168.1.0/24']
    """
    networks = []
    for each in _some(given, "addresses"):
        try:
            networks.append(str(ip_network(each.strip())))
        except ValueError as error:
            raise Invalid(
                f"{each[:60]!r} is no address or network: write it as 192.0.2.7 or 192.0.2.0/24.", code="bad_address"
            ) from error
    return list(dict.fromkeys(networks))


def comes_from(address: str, networks: Iterable[str]) -> bool:
    try:
        client: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(client, IPv6Address) and client.ipv4_mapped is not None:
        client = client.ipv4_mapped
    return any(client in ip_network(each) for each in networks)


def lies_within(network: str, networks: Iterable[str]) -> bool:
    """Whether all of `network` is in one of them."""
    inner = ip_network(network)
    return any(_contains(ip_network(each), inner) for each in networks)


def _contains(outer: Network, inner: Network) -> bool:
    if isinstance(outer, IPv4Network):
        return isinstance(inner, IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, IPv6Network) and inner.subnet_of(outer)


def covers(wall: Iterable[str], pattern: str) -> bool:
    """Whether every model that `pattern` lets through is let through by one of the wall's patterns.

    A `*` of `pattern` is one character as any other here: only a `*` of the wall's can take it up, and that one takes
    up whatever it stands for too.
    """
    return any(re.fullmatch(".*".join(map(re.escape, each.split("*"))), pattern, re.DOTALL) for each in wall)


def _some(given: Iterable[str], what: str) -> list[str]:
    listed = list(dict.fromkeys(given))
    if len(listed) > MAX_ITEMS:
        raise Invalid(f"A key has at most {MAX_ITEMS} {what}.", code="too_many_items")
    return listed
