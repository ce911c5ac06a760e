"""What lies within stays unreachable, however it is written."""

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as draw

from models.addresses import INWARD_4, is_inward, is_within, literal, networks_of

WITHIN = draw.one_of(
    *(
        draw.integers(int(network.network_address), int(network.broadcast_address)).map(IPv4Address)
        for network in INWARD_4
    )
)
OUTSIDE = draw.integers(0, 2**32 - 1).map(IPv4Address).filter(lambda address: address.is_global)
OUTSIDE = OUTSIDE.filter(lambda address: not address.is_multicast and str(address) != "168.63.129.16")
OUTSIDE = OUTSIDE.filter(lambda address: not str(address).startswith(("192.88.99.", "192.0.0.")))
INTERFACES = draw.integers(0, 2**64 - 1)


def hidden(address: IPv4Address) -> dict[str, IPv6Address]:
    """Every way in which an IPv6 address leads to an IPv4 one."""
    return {
        "mapped": IPv6Address((0xFFFF << 32) | int(address)),
        "compatible": IPv6Address(int(address)),
        "translated": IPv6Address(int(IPv6Address("64:ff9b::")) | int(address)),
        "translated within a site": IPv6Address(int(IPv6Address("64:ff9b:1::")) | int(address)),
        "6to4": IPv6Address((0x2002 << 112) | (int(address) << 80) | 1),
        "teredo": IPv6Address((0x20010000 << 96) | (int(address) ^ 0xFFFFFFFF)),
        "isatap": IPv6Address((0x2A00 << 112) | (0x5EFE << 32) | int(address)),
        "isatap, a global one": IPv6Address((0x2A00 << 112) | (0x02005EFE << 32) | int(address)),
    }


@given(WITHIN)
def test_what_lies_within_does_so_in_every_disguise(address: IPv4Address) -> None:
    assert is_inward(address)
    assert {name for name, other in hidden(address).items() if not is_inward(other)} == set()


@given(OUTSIDE)
def test_the_public_internet_lies_outside(address: IPv4Address) -> None:
    assert not is_inward(address)
    leads_out = {name for name, other in hidden(address).items() if not is_inward(other)}
    assert leads_out == {"mapped", "translated", "isatap", "isatap, a global one"}


@given(draw.integers(0, 2**128 - 1).map(IPv6Address))
def test_of_ipv6_what_python_takes_for_local_lies_within(address: IPv6Address) -> None:
    if not address.is_global or address.is_multicast or address.is_site_local or address.is_reserved:
        assert is_inward(address) or address.ipv4_mapped is not None


@pytest.mark.parametrize("text", ["::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "100::1"])
def test_of_ipv6_only_global_unicast_leads_outside(text: str) -> None:
    assert is_inward(IPv6Address(text))
    assert not is_inward(IPv6Address("2606:4700:4700::1111"))


@given(draw.integers(0, 2**32 - 1), draw.integers(0, 9))
def test_a_number_is_read_as_the_resolver_reads_it(number: int, form: int) -> None:
    address = IPv4Address(number)
    a, b, c, d = address.packed
    forms = [
        str(address), str(number), hex(number), f"0{number:o}", f"{a}.{b}.{(c << 8) | d}", f"{a}.{number & 0xFFFFFF}",
        f"{a:#x}.{b}.{c:#x}.{d}", f"0{a:o}.{b}.{c}.0{d:o}", f"{address}.", f"[::ffff:{address}]",
    ]  # fmt: skip
    read = literal(forms[form])
    assert read in (address, IPv6Address((0xFFFF << 32) | number)), forms[form]
    if form < 8:
        [found] = {entry[4][0] for entry in socket.getaddrinfo(forms[form], 443, proto=socket.IPPROTO_TCP)}
        assert IPv4Address(found) == address
    assert is_inward(read) == is_inward(address)


@pytest.mark.parametrize("name", ["localhost", "LocalHost.", "a.localhost", "localhost.localdomain"])
def test_this_machine_has_names(name: str) -> None:
    assert literal(name) == IPv4Address("127.0.0.1")


@pytest.mark.parametrize("name", ["example.com", "abc", "0x7g.1", "1.2.3.4.5", "127.0.0.1.nip.io"])
def test_other_names_are_no_addresses(name: str) -> None:
    assert literal(name) is None


def test_networks_are_read_and_compared() -> None:
    networks = networks_of(" 10.0.0.0/8, fd00::/8 ,")
    assert is_within(IPv4Address("10.1.2.3"), networks) and is_within(IPv6Address("fd00::1"), networks)
    assert is_within(IPv6Address("::ffff:10.1.2.3"), networks)
    assert not is_within(IPv4Address("11.0.0.1"), networks)
    assert IPv6Network("fd00::/8") in networks
    with pytest.raises(ValueError, match="host bits"):
        networks_of("10.0.0.1/8")
