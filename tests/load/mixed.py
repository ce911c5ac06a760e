"""Mixed traffic: users poll, submit, upload, download, follow and cancel for a long time; the memory stays flat."""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

import httpx

from tests.api.service import User
from tests.attack.findings import Findings
from tests.attack.measures import MEGABYTE, resident_bytes
from tests.attack.target import Target
from tests.integration.whole import until_none_are_left
from tests.load.fairness import inputs_of, spec

SAMPLE_SECONDS = 2.0
FLAT_BYTES, FLAT_SHARE = 16 * MEGABYTE, 0.1
"""Growth from the second to the last quarter that still counts as flat."""
END_SECONDS = 300.0
"""Longest time without the end of any job, once nobody submits."""


class Traffic:
    """Users of one service, each kind in threads of its own."""

    def __init__(self, target: Target, findings: Findings, seed: int):
        self._target, self._findings, self._seed = target, findings, seed
        self._over, self._lock = threading.Event(), threading.Lock()
        self.jobs: list[str] = []
        self.delays: dict[str, list[float]] = defaultdict(list)
        self.statuses: Counter[int] = Counter()
        self.memory: dict[str, list[int]] = defaultdict(list)

    def run(self, seconds: float) -> None:
        """Let the users work for some time, end all jobs, and compare."""
        with self._target.user(limits={"storage_bytes": 2**50}) as user:
            self._spec = spec(inputs_of(self._target, user))
            kinds: list[tuple[Callable[[User, random.Random], None], float]] = [
                (self._poll, 0.02),
                (self._poll, 0.02),
                (self._list, 0.2),
                (self._submit, 1.5),
                (self._upload, 3.0),
                (self._follow, 0.1),
                (self._follow, 0.1),
                (self._download, 1.0),
                (self._cancel, 8.0),
            ]
            threads = [
                threading.Thread(target=self._loop, args=(user, number, *kind), daemon=True)
                for number, kind in enumerate(kinds)
            ]
            for thread in threads:
                thread.start()
            self._sample(seconds)
            self._over.set()
            for thread in threads:
                thread.join(90)
            self._end(user)
        self._report()

    def _loop(self, user: User, number: int, act: Callable[[User, random.Random], None], pause: float) -> None:
        dice = random.Random(f"mixed {self._seed} {number}")
        while not self._over.wait(dice.expovariate(1 / pause)):
            try:
                act(user, dice)
            except httpx.HTTPError as error:
                self._findings.violation("answered", repr(error))

    def _send(self, user: User, kind: str, method: str, path: str, **options: Any) -> httpx.Response:
        began = time.monotonic()
        answer = user.http.request(method, path, **options)
        with self._lock:
            self.delays[kind].append(time.monotonic() - began)
            self.statuses[answer.status_code] += 1
        self._findings.require(
            answer.status_code < 500, "no 5xx", f"{method} {path}: {answer.status_code} {answer.text[:300]}"
        )
        return answer

    def _some_job(self, dice: random.Random) -> str | None:
        with self._lock:
            return dice.choice(self.jobs[-50:]) if self.jobs else None

    def _poll(self, user: User, dice: random.Random) -> None:
        if job := self._some_job(dice):
            self._send(user, "poll", "GET", f"/jobs/{job}")

    def _list(self, user: User, dice: random.Random) -> None:
        self._send(user, "list", "GET", dice.choice(("/jobs", "/teachers", "/datasets", "/catalogue", "/keys/me")))

    def _submit(self, user: User, dice: random.Random) -> None:
        answer = self._send(user, "submit", "POST", "/jobs", json=self._spec)
        if answer.status_code == 202:
            with self._lock:
                self.jobs.append(answer.json()["id"])

    def _upload(self, user: User, dice: random.Random) -> None:
        record = self._send(user, "create", "POST", "/datasets", json={}).json()
        content = (self._target.inputs / "images.npz").read_bytes()
        answer = self._send(
            user, "upload", "PUT", record["upload"], content=content, headers={"Prefer": "wait=30"}, timeout=60
        )
        shown = answer.json()
        deadline = time.monotonic() + 120
        while shown["status"] == "inspecting" and time.monotonic() < deadline:
            shown = user.http.get(f"/datasets/{record['id']}", headers={"Prefer": "wait=10"}).json()
        self._findings.require(shown["status"] == "ready", "uploads are ready", f"{shown['status']} {shown['problem']}")
        self._send(user, "delete", "DELETE", f"/datasets/{record['id']}")

    def _follow(self, user: User, dice: random.Random) -> None:
        if job := self._some_job(dice):
            seen: list[int] = []
            until = time.monotonic() + dice.uniform(1, 10)
            with user.http.stream("GET", f"/jobs/{job}/events", headers={"Accept": "text/event-stream"}) as answer:
                for line in answer.iter_lines():
                    seen += [int(line[4:])] if line.startswith("id: ") else []
                    if time.monotonic() > until or self._over.is_set():
                        break
            self._findings.require(seen == list(range(1, len(seen) + 1)), "streams", f"{job}: {seen}")

    def _download(self, user: User, dice: random.Random) -> None:
        if job := self._some_job(dice):
            self._send(user, "download", "GET", f"/jobs/{job}/artifacts.zip")

    def _cancel(self, user: User, dice: random.Random) -> None:
        if job := self._some_job(dice):
            self._send(user, "cancel", "POST", f"/jobs/{job}/cancel")

    def _sample(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for name, process in self._target.whole.processes.items():
                self.memory[name].append(resident_bytes(process.pid))
                self._findings.require(
                    process.poll() is None, "nothing goes down", f"{name} ended with {process.returncode}"
                )
            time.sleep(SAMPLE_SECONDS)

    def _end(self, user: User) -> None:
        """Every job ends, however long the queue has become."""
        left = until_none_are_left(lambda: self._open(user), END_SECONDS)
        self._findings.require(not left, "jobs end", f"{left} are open, and none has ended for {END_SECONDS:.0f} s")
        failed = user.http.get("/jobs", params={"status": "failed", "limit": 5}).json()["data"]
        self._findings.require(not failed, "jobs end", f"failed: {[job['error'] for job in failed]}")

    def _open(self, user: User) -> int:
        """The number of jobs that have not ended."""
        query: dict[str, Any] = {"status": ["queued", "running"], "limit": 100}
        count = 0
        while True:
            page = user.http.get("/jobs", params=query).json()
            count += len(page["data"])
            if not page["next_cursor"]:
                return count
            query["cursor"] = page["next_cursor"]

    def _report(self) -> None:
        growth = {}
        for name, values in self.memory.items():
            quarter = max(1, len(values) // 4)
            before, after = median(values[quarter : 2 * quarter] or values), median(values[-quarter:])
            growth[name] = {"MB": round(after / MEGABYTE), "growth MB": round((after - before) / MEGABYTE, 1)}
            flat = after - before <= max(FLAT_BYTES, FLAT_SHARE * before)
            self._findings.require(flat, "memory is flat", f"{name}: {growth[name]}")
        api = max(self.memory["api"], default=0)
        self._findings.require(api < 200 * MEGABYTE, "API memory", f"{api / MEGABYTE:.0f} MB")
        delays = {
            kind: {
                "requests": len(values),
                "median ms": round(median(values) * 1000, 1),
                "p99 ms": round(quantiles(values, n=100)[98] * 1000, 1),
            }
            for kind, values in sorted(self.delays.items())
            if len(values) > 1
        }
        self._findings.note(
            "mixed", jobs=len(self.jobs), answers=dict(sorted(self.statuses.items())), memory=growth, delays=delays
        )
