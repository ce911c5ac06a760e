"""Which addresses lie outside: those that a request which a stranger asks for may be sent to."""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

INWARD_4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/3", "168.63.129.16/32",
    )
)  # fmt: skip
"""IANA's special-purpose blocks, multicast and reserved space, and the one public address by which Azure serves its
machines from within. Ours and not `is_global`, which changes between releases and lets multicast through."""
GLOBAL_6 = IPv6Network("2000::/3")
"""Of IPv6, only global unicast leads outside."""
INWARD_6 = tuple(IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
"""Of global unicast: protocol assignments with Teredo, documentation, and 6to4, which hides an IPv4 address."""
NAT64 = IPv6Network("64:ff9b::/96")
ISATAP = 0x00005EFE
"""How the interface identifier of an ISATAP address begins, but for one bit; the IPv4 address follows."""


def is_inward(address: Address) -> bool:
    """Whether an address leads to this machine, its network or nowhere; an IPv4 address within an IPv6 one counts."""
    if isinstance(address, IPv4Address):
        return any(address in network for network in INWARD_4)
    if address.ipv4_mapped is not None:
        return is_inward(address.ipv4_mapped)
    if address in NAT64:
        return is_inward(_low_32_bits(address))
    if address not in GLOBAL_6 or any(address in network for network in INWARD_6):
        return True
    hidden = (int(address) >> 32) & 0xFDFFFFFF == ISATAP
    return hidden and is_inward(_low_32_bits(address))


def _low_32_bits(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFFFFFF)


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether an address lies in one of these networks; one of IPv4 that is written as IPv6 counts as what it is."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return any((mapped or address) in network for network in networks)


def literal(host: str) -> Address | None:
    """The address that a host's text is, in any form that a resolver takes for one (`0x7f.1`, `2130706433`); None for
    a name."""
    if host.rstrip(".").lower() in ("localhost", "localhost.localdomain") or host.lower().endswith(".localhost"):
        return IPv4Address("127.0.0.1")
    try:
        return ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host.rstrip(".")))
    except OSError:
        return None


def networks_of(text: str) -> tuple[Network, ...]:
    """Networks from a text such as `10.1.0.0/16, fd00::/8`.

    Raises:
        ValueError: one of them is none.
    """
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
