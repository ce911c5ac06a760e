"""A real HTTP server on a real socket, whose responses are scripted by the test."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Request:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Response:
    """A response; with `cut`, only that many bytes of the body are sent and the connection is broken."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


Script = Callable[[Request], Response]


class Scripted:
    """A server that responds with its `script` and records the requests."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.script: Script = lambda request: Response(404)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def respond_with(self, *responses: Response) -> None:
        """Send these responses in turn; the last one is repeated."""
        left = list(responses)
        self.script = lambda request: left.pop(0) if len(left) > 1 else left[0]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                request = Request(self.command, self.path, dict(self.headers), self.rfile.read(length))
                scripted.requests.append(request)
                response = scripted.script(request)
                self.send_response(response.status)
                for name, value in ({"Content-Length": str(len(response.body))} | response.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(response.body[: response.cut])
                if response.cut is not None:
                    self.close_connection = True

            do_POST = do_PUT = do_DELETE = do_PATCH = do_GET  # noqa: N815 - names required by http.server

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler
