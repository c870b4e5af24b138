"""Which addresses are the public internet, and which the operator allows besides."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from terrace.errors import Invalid

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# IANA's registries of special-purpose addresses, spelled out: what Python calls global changes with its version.
NOT_PUBLIC_4 = tuple(
    IPv4Network(each)
    for each in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carriers' NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, where clouds keep credentials
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, given up
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
PUBLIC_6 = IPv6Network("2000::/3")  # nothing else is given out
NOT_PUBLIC_6 = tuple(
    IPv6Network(each)
    for each in (
        "2001::/23",  # protocol assignments, Teredo
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
# An IPv4 address in the last 32 bits: mapped, translated (SIIT), and through NAT64.
CARRIES_4 = tuple(IPv6Network(each) for each in ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
SIX_TO_FOUR = IPv6Network("2002::/16")


class Reach:
    """What may be connected to: public addresses and `allow`. Raises Invalid for an `allow` that is no network."""

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self._allowed = [_network(each) for each in allow]

    def allows(self, host: str) -> bool:
        """`host` is an address as sockets have it."""
        if "%" in host:  # a zone: link-local
            return False
        address = _reached(ip_address(host))
        return _public(address) or any(address in network for network in self._allowed)


def _reached(address: Address) -> Address:
    """The address, or the IPv4 address that is reached through it."""
    if isinstance(address, IPv4Address):
        return address
    if any(address in network for network in CARRIES_4):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in SIX_TO_FOUR:
        return IPv4Address((int(address) >> 80) & 0xFFFFFFFF)
    return address


def _public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_4)
    return address in PUBLIC_6 and not any(address in network for network in NOT_PUBLIC_6)


def _network(text: str) -> Network:
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        raise Invalid(
            f"TERRACE_OUTBOUND__ALLOW: {text!r} is no address or network; write such as 10.0.0.0/8.",
            code="bad_settings",
        ) from error
