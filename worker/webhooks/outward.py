"""A POST to a URL that a user chooses, protected against server-side request forgery (SSRF).

The host name is resolved once, all of its addresses are checked, and the connection is made to one of the checked
addresses, so a second DNS lookup cannot give another one. TLS and `Host` use the name. Redirects are not followed, only
the status of the response is read, proxies of the environment are not used, and one deadline covers everything.
"""

import ssl
import time
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from socket import IPPROTO_TCP, gaierror, getaddrinfo
from typing import Any

import certifi
import httpcore

from models.addresses import Address, is_inward, is_within
from models.settings import settings
from models.spec.webhook_target import Target


class Refused(Exception):
    """The host name has an address that is not public or allowed."""


class Outward(httpcore.NetworkBackend):
    """Connects only to checked addresses, and ends every operation at the deadline."""

    def __init__(self, seconds: float, plain: bool = False):
        self._plain = plain
        self._ends_at = time.monotonic() + seconds

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        last = httpcore.ConnectError("the host name has no address")
        for address in checked(host, port, self._plain):
            try:
                stream = httpcore.SyncBackend().connect_tcp(str(address), port, _left(self._ends_at))
                return _Bounded(stream, self._ends_at)
            except httpcore.ConnectError as error:
                last = error
        raise last


class _Bounded(httpcore.NetworkStream):
    """A stream with a total deadline, so that a receiver cannot keep it open by sending single bytes."""

    def __init__(self, stream: httpcore.NetworkStream, ends_at: float):
        self._stream = stream
        self._ends_at = ends_at

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._ends_at))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._ends_at))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Bounded(self._stream.start_tls(ssl_context, server_hostname, _left(self._ends_at)), self._ends_at)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(ends_at: float) -> float:
    left = ends_at - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the deadline has passed")
    return left


def checked(host: str, port: int, plain: bool = False) -> list[Address]:
    """The addresses of a host name, if all of them are permitted.

    Args:
        plain: whether the connection has no TLS, which is permitted only to allowed networks.

    Raises:
        Refused: an address is in a private or local network that is not allowed, or `plain` and in no allowed network.
        httpcore.ConnectError: the name has no address.
    """
    try:
        found = getaddrinfo(host, port, proto=IPPROTO_TCP)
    except (gaierror, UnicodeError) as error:
        raise httpcore.ConnectError(f"{host} has no address") from error
    addresses = list(dict.fromkeys(ip_address(entry[4][0]) for entry in found))
    allowed = settings().webhook_networks
    for address in addresses:
        if not is_within(address, allowed) and (plain or is_inward(address)):
            raise Refused(f"{host} has the address {address}")
    return addresses


def post(target: Target, headers: dict[str, str], body: bytes, seconds: float) -> int:
    """Send a body; returns the status code of the response.

    Raises:
        Refused: the address is not permitted.
        httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError: there was no response.
    """
    url = httpcore.URL(
        scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
    )
    backend = Outward(seconds, plain=target.scheme != "https")
    trusted = trust(settings().webhook_ca_file) if target.scheme == "https" else None
    with (
        httpcore.ConnectionPool(ssl_context=trusted, network_backend=backend) as pool,
        pool.stream("POST", url, headers=[*headers.items(), ("Connection", "close")], content=body) as response,
    ):
        return int(response.status)


@lru_cache(maxsize=1)
def trust(more: str) -> ssl.SSLContext:
    """A TLS context that trusts the public certificate authorities, and those of the file `more` if it is set."""
    context = ssl.create_default_context(cafile=certifi.where())
    if more:
        context.load_verify_locations(more)
    return context
