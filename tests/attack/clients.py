"""Clients that stall, lie about lengths, go away, and send what is no HTTP; in waves, each followed by a good request."""

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import httpx

from models.records import Artifact
from tests.api.service import User
from tests.attack.corpus.case import TEACHER
from tests.attack.findings import Findings
from tests.attack.measures import MEGABYTE, Watch, open_sockets, resident_bytes
from tests.attack.target import CLIENT_SECONDS, Target

CHUNK = bytes(2**20)
WAVE = 24
END_SECONDS = CLIENT_SECONDS + 60.0
"""Seconds within which every connection of a bad client must end, on a busy machine."""
API_BYTES = 200 * MEGABYTE


class Client:
    """One connection. It keeps what the service sends."""

    def __init__(self, target: Target, user: User):
        self.user = user
        self.socket = socket.create_connection(("127.0.0.1", int(target.url.rpartition(":")[2])), timeout=END_SECONDS)
        self.received = b""

    def head(self, line: str, *fields: str) -> bytes:
        """The head of a request with the key."""
        key = f"Authorization: Bearer {self.user.key}"
        return "\r\n".join([f"{line} HTTP/1.1", "Host: x", key, *fields, "", ""]).encode("latin-1", "replace")

    def put(self, *fields: str) -> bytes:
        """The head of a PUT of a new upload."""
        record = self.user.http.post("/teachers", json=TEACHER).raise_for_status().json()
        return self.head("PUT " + record["upload"].removeprefix(self.user.service.url), *fields)

    def send(self, data: bytes) -> None:
        with suppress(OSError):  # the service may have ended the connection
            self.socket.sendall(data)

    def drip(self, data: bytes, pause: float) -> None:
        """Send byte by byte until the service answers."""
        self.socket.settimeout(pause)
        for at in range(len(data)):
            try:
                self.socket.sendall(data[at : at + 1])
                if chunk := self.socket.recv(2**16):
                    self.received += chunk
                break
            except TimeoutError:
                continue
            except OSError:
                break
        self.socket.settimeout(END_SECONDS)

    def read(self) -> bytes:
        """Everything that the service sends until it ends the connection; raises TimeoutError if it does not."""
        with suppress(ConnectionError):
            while chunk := self.socket.recv(2**16):
                self.received += chunk
        return self.received

    def statuses(self) -> list[int]:
        """The statuses of all answers."""
        parts = self.received.split(b"HTTP/1.1 ")[1:]
        return [int(part[:3]) for part in parts if part[:3].isdigit()]


Act = Callable[[Client, random.Random], None]


def acts(job: str) -> dict[str, Act]:
    """What bad clients do, by name. `job` has a large artifact."""
    long = f"/v1/jobs/{job}/artifacts/large"

    def requests(*heads: bytes) -> Act:
        return lambda client, dice: client.send(b"".join(heads))

    def head(*fields: str, line: str = "GET /v1/jobs", after: bytes = b"") -> Act:
        return lambda client, dice: client.send(client.head(line, *fields) + after)

    def put(*fields: str, body: bytes = b"") -> Act:
        return lambda client, dice: client.send(client.put(*fields) + body)

    second = b"GET /v1/keys/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer smuggled\r\n\r\n"
    return {
        "says nothing": lambda client, dice: None,
        "stalls in the head": lambda client, dice: client.send(client.head("GET /v1/jobs")[: dice.randrange(10, 60)]),
        "drips the head": lambda client, dice: client.drip(client.head("GET /v1/jobs", "X: " + "x" * 5000), 0.05),
        "stalls before the body": put("Content-Length: 1000000000"),
        "stalls in the body": lambda client, dice: client.send(
            client.put("Content-Length: 1000000000") + CHUNK * dice.randrange(1, 13)
        ),
        "drips the body": lambda client, dice: (
            client.send(client.put("Content-Length: 1000000")),
            client.drip(bytes(5000), 0.05),
        )[0],
        "stalls in JSON": head(
            "Content-Type: application/json", "Content-Length: 1000", line="POST /v1/jobs", after=b'{"a":'
        ),
        "goes away in the head": lambda client, dice: (
            client.send(client.head("GET /v1/jobs")[:30]),
            client.socket.close(),
        )[0],
        "goes away in the body": lambda client, dice: (
            client.send(client.put("Content-Length: 100000000") + CHUNK * 5),
            client.socket.close(),
        )[0],
        "goes away before the answer": lambda client, dice: (
            client.send(client.head("GET /v1/jobs", "Prefer: wait=20")),
            client.socket.close(),
        )[0],
        "resets": lambda client, dice: (
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"),
            client.send(client.put("Content-Length: 9999999") + CHUNK),
            client.socket.close(),
        )[0],
        "ends the body early": lambda client, dice: (
            client.send(client.put("Content-Length: 5000000") + CHUNK),
            client.socket.shutdown(socket.SHUT_WR),
        )[0],
        "sends more than it said": put("Content-Length: 10", body=bytes(10) + b"x" * 10_000),
        "smuggles behind a length": put("Content-Length: 10", body=bytes(10) + second),
        "two lengths": put("Content-Length: 10", "Content-Length: 200", body=bytes(10) + second),
        "length and chunks": put("Content-Length: 10", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + second),
        "odd coding": put("Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + second),
        "negative length": put("Content-Length: -1", body=second),
        "length of letters": put("Content-Length: ten", body=second),
        "huge length": put("Content-Length: " + "9" * 30, body=CHUNK),
        "huge JSON": head(
            "Content-Type: application/json", "Content-Length: 99999999999", line="POST /v1/jobs", after=CHUNK
        ),
        "endless chunks": put("Transfer-Encoding: chunked", body=b"1\r\nx\r\n" * 100_000),
        "huge chunk": put("Transfer-Encoding: chunked", body=b"ffffffffffffffff\r\n" + CHUNK),
        "chunk of letters": put("Transfer-Encoding: chunked", body=b"zz\r\n"),
        "chunk extensions": put("Transfer-Encoding: chunked", body=b"1;" + b"x" * 10**6 + b"\r\nx\r\n0\r\n\r\n"),
        "trailers": put("Transfer-Encoding: chunked", body=b"1\r\nx\r\n0\r\n" + b"T: x\r\n" * 10_000 + b"\r\n"),
        "no chunk": put("Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        "expects": put("Expect: 100-continue", "Content-Length: 1000000"),
        "expects nonsense": put("Expect: nonsense", "Content-Length: 5", body=b"hello"),
        "does not read": head(line=f"GET {long}"),
        "does not read pages": requests(*[b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"] * 100),
        "queues requests": requests(*[b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"] * 2000),
        "many fields": head(*[f"X{number}: x" for number in range(10_000)]),
        "long field": head("X: " + "x" * 10**6),
        "long path": head(line="GET /v1/jobs/" + "x" * 200_000),
        "long method": head(line="X" * 100_000 + " /v1/jobs"),
        "unknown method": head(line="BREW /v1/jobs"),
        "CONNECT": head(line="CONNECT 127.0.0.1:22"),
        "TRACE": head(line="TRACE /v1/jobs"),
        "absolute path": head(line="GET http://169.254.169.254/latest/meta-data"),
        "dots": head(line="GET /v1/../../../etc/passwd"),
        "encoded dots": head(line="GET /v1/jobs/%2e%2e%2f%2e%2e%2fetc%2fpasswd/artifacts/x"),
        "NUL": head(line="GET /v1/jobs/%00"),
        "bad escapes": head(line="GET /v1/jobs/%zz%u0041%ff%c0%af"),
        "long query": head(line="GET /v1/jobs?" + "&".join(f"label=a:{n}" for n in range(3000))),
        "no version": requests(b"GET /\r\n\r\n"),
        "old version": requests(b"GET /health/live HTTP/1.0\r\n\r\n"),
        "wrong version": requests(b"GET / HTTP/7.7\r\n\r\n"),
        "HTTP/2": requests(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100)),
        "upgrade to HTTP/2": head(
            "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA", "Connection: Upgrade, HTTP2-Settings"
        ),
        "TLS": requests(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)),
        "websocket": head(
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: x",
            "Sec-WebSocket-Version: 13",
            line=f"GET /v1/jobs/{job}/events",
        ),
        "noise": lambda client, dice: client.send(dice.randbytes(2000)),
        "line feeds": requests(b"\n" * 10_000),
        "folded fields": requests(b"GET /health/live HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n"),
        "field without colon": requests(b"GET / HTTP/1.1\r\nHost\r\n\r\n"),
        "two hosts": requests(b"GET /health/live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        "evil host": head(
            "Host: evil.example",
            "X-Forwarded-Host: evil.example",
            "X-Forwarded-Proto: javascript",
            line="GET /v1/teachers",
        ),
        "split answer": head("X-Request-Id: a%0d%0aSet-Cookie: x", "Prefer: wait=1\tx"),
        "many ranges": head("Range: bytes=" + ",".join(f"{n}-{n}" for n in range(5000)), line=f"GET {long}"),
        "backward range": head("Range: bytes=100-1", line=f"GET {long}"),
        "endless range": head("Range: bytes=0-" + "9" * 100, line=f"GET {long}"),
        "odd tag": head("If-None-Match: " + '"x",' * 2000, line=f"GET /v1/jobs/{job}"),
        "odd wait": head("Prefer: wait=99999999999999999999", line=f"GET /v1/jobs/{job}"),
    }


class Clients:
    """Sends waves of bad clients."""

    def __init__(self, target: Target, findings: Findings, watch: Watch, seed: int):
        self._target, self._findings, self._watch = target, findings, watch
        self._dice = random.Random(f"clients {seed}")
        self.waves: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()

    def run(self, seconds: float) -> None:
        """Waves until the time is used up; at least one of each kind if there is time for all."""
        deadline = time.monotonic() + seconds
        with self._target.user() as owner:
            job = owner.job("succeeded")
            owner.blob(Artifact, job, "large", bytes(16 * 2**20))
            files = open_sockets(self._watch.api)
            deck: list[tuple[str, Act]] = []
            while time.monotonic() < deadline:
                if not deck:
                    deck = list(acts(job).items())
                    self._dice.shuffle(deck)
                # several kinds at once, so that waiting for one costs no time of the others
                wave = [deck.pop() for _ in range(min(6, len(deck)))]
                self._wave(owner, wave)
            self._after(files)

    def _wave(self, owner: User, kinds: list[tuple[str, Act]]) -> None:
        threads = []
        for name, act in kinds:
            self.waves[name] += 1
            for _ in range(WAVE // len(kinds)):
                dice = random.Random(self._dice.random())
                threads.append(threading.Thread(target=self._one, args=(owner, name, act, dice), daemon=True))
        for thread in threads:
            thread.start()
        began = time.monotonic()
        self._require_good(owner, [name for name, _ in kinds], began)
        for thread in threads:
            thread.join(END_SECONDS + 5)
            self._findings.require(not thread.is_alive(), "connections end", f"one of {[name for name, _ in kinds]}")
        now = resident_bytes(self._watch.api)
        self._findings.require(
            now < API_BYTES, "API memory", f"{now / MEGABYTE:.0f} MB after {[name for name, _ in kinds]}"
        )

    def _one(self, owner: User, name: str, act: Act, dice: random.Random) -> None:
        try:
            client = Client(self._target, owner)
            act(client, dice)
            if name.startswith("does not read"):
                time.sleep(CLIENT_SECONDS * 1.5)
            client.read()
        except TimeoutError:
            self._findings.violation("connections end", f"{name}: still open after {END_SECONDS:.0f} s")
            return
        except (OSError, httpx.HTTPError):
            return  # it was refused, or it went away itself
        finally:
            with suppress(OSError, UnboundLocalError):
                client.socket.close()
        statuses = client.statuses()
        self.statuses.update(statuses)
        # 501 and 505 would be right for an unknown coding or version, but uvicorn answers 400
        for status in statuses:
            self._findings.require(status < 500, "no 5xx", f"{name}: {status}: {client.received[:300]!r}")
        self._findings.require(b"root:x:" not in client.received, "nothing leaks", f"{name}: {client.received[:300]!r}")

    def _require_good(self, owner: User, names: list[str], began: float) -> None:
        try:
            answer = owner.http.get("/keys/me")
            right = answer.status_code == 200
        except httpx.HTTPError as error:
            right, answer = False, error  # type: ignore[assignment]
        self._findings.require(right, "answers a good request after each", f"during {names}: {answer!r}")
        self._slowest = max(getattr(self, "_slowest", 0.0), time.monotonic() - began)

    def _after(self, files: int) -> None:
        deadline = time.monotonic() + END_SECONDS
        while (now := open_sockets(self._watch.api)) > files + 10 and time.monotonic() < deadline:
            time.sleep(0.2)
        self._findings.require(now <= files + 10, "connections end", f"{now} open sockets, {files} before")
        partial = [path.name for path in (self._target.whole.data / "blobs").rglob("*#*")]
        self._findings.require(not partial, "nothing is left", f"incomplete blobs: {partial[:5]}")
        self._findings.note(
            "clients",
            kinds=len(self.waves),
            connections=WAVE // 6 * sum(self.waves.values()),
            answers=dict(sorted(self.statuses.items())),
            good_request_slowest_seconds=round(self._slowest, 2),
        )
