"""A receiver of webhooks: a real HTTPS server, with a certificate of an authority made for the test."""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme
from standardwebhooks import Webhook


@dataclass(frozen=True)
class Received:
    """One request, as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:
        """The message, once its signature holds for the secret."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    """What was received; `script` holds the answers to come (a status code, or seconds of silence), then `otherwise`."""

    url: str = ""
    port: int = 0
    script: list[int | float] = field(default_factory=list)
    otherwise: int | float = 204
    received: list[Received] = field(default_factory=list)
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Received) -> int | float:
        with self._lock:
            self.received.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            return self.script.pop(0) if self.script else self.otherwise

    def done(self) -> None:
        with self._lock:
            self._at_once -= 1


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver
    over: threading.Event

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.receiver.answer(Received(self.path, headers, body))
        try:
            if isinstance(answer, float):
                self._drip(answer)
            else:
                self.send_response(answer)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()
        except OSError:
            pass  # the sender has gone
        finally:
            self.receiver.done()

    do_GET = do_POST  # noqa: N815

    def _drip(self, seconds: float) -> None:
        # a byte now and then: each read of the sender succeeds, and its deadline must hold all the same
        until = time.monotonic() + seconds
        self.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
        while time.monotonic() < until and not self.over.wait(0.1):
            self.wfile.write(b".")
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # senders that refuse the certificate


class Authority:
    """Issues certificates that only those trust who were given its file."""

    def __init__(self, folder: Path):
        self._authority = trustme.CA()
        self.file = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    @contextmanager
    def receiver(self, *names: str, host: str = "127.0.0.1", port: int = 0) -> Iterator[Receiver]:
        """A receiver at an address of this machine, for these names and the address itself."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(host, *names).configure_cert(context)
        receiver, over = Receiver(), threading.Event()
        handler = type("Handler", (_Handler,), {"receiver": receiver, "over": over})
        server = _Server((host, port), handler)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        receiver.port = server.server_address[1]
        receiver.url = f"https://{host}:{receiver.port}/hook?a=b"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            over.set()
            server.shutdown()
            server.server_close()
            thread.join()
