"""The proxy forwards bytes, refuses, hangs and is slow, for old and new connections."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.chaos.proxy import LATENCY_SECONDS, Proxy


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy in front of an echo server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        with Proxy("127.0.0.1", server.getsockname()[1]) as proxy:
            yield proxy


def _echo(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection, suppress(ConnectionError):
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def echoed(connection: socket.socket, data: bytes = b"hello") -> bytes:
    connection.sendall(data)
    return connection.recv(100)


def test_bytes_pass(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert echoed(connection) == b"hello"


def test_refusing_closes_old_connections_and_refuses_new_ones_until_it_ends(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        echoed(connection)
        proxy.set("refusing")
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.set("open")
    with connect(proxy) as connection:
        assert echoed(connection) == b"hello"


def test_silent_connections_hang_and_continue_afterwards(proxy: Proxy) -> None:
    with connect(proxy) as old:
        echoed(old)
        proxy.set("silent")
        with connect(proxy) as new:
            for connection in (old, new):
                connection.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    echoed(connection)
                connection.settimeout(5)
            proxy.set("open")
            assert [connection.recv(100) for connection in (old, new)] == [b"hello", b"hello"]


def test_slow_is_slow(proxy: Proxy) -> None:
    proxy.set("slow")
    with connect(proxy) as connection:
        started_at = time.monotonic()
        assert echoed(connection) == b"hello"
        assert time.monotonic() - started_at >= 2 * LATENCY_SECONDS


def test_torn_connections_end_in_the_middle_and_new_ones_work_afterwards(proxy: Proxy) -> None:
    proxy.set("torn")
    with connect(proxy) as connection, suppress(ConnectionError):
        sent = b"x" * 2**20
        connection.settimeout(30)
        sender = threading.Thread(target=lambda: _send(connection, sent), daemon=True)
        sender.start()
        received = 0
        while chunk := connection.recv(2**16):
            received += len(chunk)
        assert received < len(sent)
    proxy.set("open")
    with connect(proxy) as connection:
        assert echoed(connection) == b"hello"


def _send(connection: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        connection.sendall(data)
