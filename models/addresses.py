"""Which IP addresses are public: requests on behalf of users may go only to those (protection against SSRF)."""

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
"""IANA's special-purpose blocks, multicast and reserved space, and the public address 168.63.129.16, at which Azure serves
virtual machines internally. Not `is_global`, which changes between Python releases and includes multicast."""
GLOBAL_6 = IPv6Network("2000::/3")
"""Global unicast: the only public IPv6 addresses."""
INWARD_6 = tuple(IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
"""Parts of global unicast that are not public: protocol assignments (with Teredo), documentation, and 6to4, which embeds an
IPv4 address."""
NAT64 = IPv6Network("64:ff9b::/96")
ISATAP = 0x00005EFE
"""First 32 bits of the interface identifier of an ISATAP address, except for one bit; the IPv4 address follows."""


def is_inward(address: Address) -> bool:
    """Whether an address is not public: this machine, a private network, or unroutable.

    An IPv6 address that embeds an IPv4 address is judged by the IPv4 address.
    """
    if isinstance(address, IPv4Address):
        return any(address in network for network in INWARD_4)
    if address.ipv4_mapped is not None:
        return is_inward(address.ipv4_mapped)
    if address in NAT64:
        return is_inward(_low_32_bits(address))
    if address not in GLOBAL_6 or any(address in network for network in INWARD_6):
        return True
    is_isatap = (int(address) >> 32) & 0xFDFFFFFF == ISATAP
    return is_isatap and is_inward(_low_32_bits(address))


def _low_32_bits(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFFFFFF)


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks. IPv4-mapped IPv6 addresses count as IPv4."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return any((mapped or address) in network for network in networks)


def literal(host: str) -> Address | None:
    """The address in a host string, in any form that resolvers accept (`0x7f.1`, `2130706433`); None for a host name."""
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
    """Parse networks from a text such as `10.1.0.0/16, fd00::/8`.

    Raises:
        ValueError: a part is not a network.
    """
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
