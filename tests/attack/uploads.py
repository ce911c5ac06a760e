"""Hostile files, sent one after the other: each gets a verdict in bounded time and memory, and nothing of it runs."""

import itertools
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from sqlalchemy import select
from sqlalchemy.orm import Session

from models.records import Inspection
from tests.api.service import User
from tests.attack.corpus.case import Canary, Case
from tests.attack.findings import Findings
from tests.attack.measures import MEGABYTE, Watch, resident_bytes
from tests.attack.target import Target

SENDERS = 4
MOST_SECONDS = 60.0
"""Duration of one upload with its inspection on a busy machine, beyond a second for each megabyte."""
ENGINE_BYTES, TIMES_UPLOAD = 600 * MEGABYTE, 3
API_BYTES = 200 * MEGABYTE
GOOD_EVERY = 40
MOST_TEXT = 100_000


class Uploads:
    """Sends the cases of a corpus to a service."""

    def __init__(self, target: Target, canary: Canary, findings: Findings, watch: Watch):
        self._target, self._canary, self._findings, self._watch = target, canary, findings, watch
        self._next = threading.Lock()
        self._seen: list[str] = []
        self.sent: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}
        self.sizes: dict[str, tuple[str, int]] = {}
        self.good: list[float] = []

    def run(self, cases: Iterator[Case], seconds: float, most: int | None = None) -> None:
        """Send cases until the time is used up or `most` are sent."""
        deadline, idle = time.monotonic() + seconds, self._watch.count()
        limited = itertools.islice(cases, most)
        with ThreadPoolExecutor(SENDERS) as pool:
            for done in [pool.submit(self._send_some, limited, deadline) for _ in range(SENDERS)]:
                done.result()
        self._after(idle)

    def _send_some(self, cases: Iterator[Case], deadline: float) -> None:
        with self._target.user(limits={"storage_bytes": 2**40}) as user:
            while time.monotonic() < deadline:
                with self._next:
                    case = next(cases, None)
                    number = sum(self.sent.values()) + 1
                    if case is None:
                        return
                    self.sent[case.family] += 1
                try:
                    self._send(user, case)
                except httpx.HTTPError as error:
                    self._findings.violation("answered", f"{case.family}, {case.name}: {error!r}")
                self._look_for_traces(case)
                if number % GOOD_EVERY == 0:
                    self._send_good(case)

    def _send(self, user: User, case: Case) -> None:
        place, data, began = f"{case.family}, {case.name}", case.make(), time.monotonic()
        created = user.http.post(f"/{case.resource}", json=dict(case.record))
        self._require_no_bug(created, place)
        if created.status_code == 422 and case.record and case.verdict is None:  # the options are refused at once
            self.verdicts["422"] += 1
            return
        record = created.raise_for_status().json()
        path = f"/{case.resource}/{record['id']}"
        self.sizes[record["id"]] = (place, len(data))
        put = user.http.put(record["upload"], content=data, headers={"Prefer": "wait=20"}, timeout=60)
        self._require_no_bug(put, place)
        if put.status_code == 400 and not data:
            self.verdicts["400"] += 1
        elif self._accepted(put, place):
            self._judge(self._verdict(user, path, place, began, len(data)), case, place)
            self.seconds[place] = time.monotonic() - began
        self._require_no_bug(user.http.delete(path), place)
        self._findings.require(user.http.get("/keys/me").status_code == 200, "answers a good request after each", place)

    def _accepted(self, put: httpx.Response, place: str) -> bool:
        self._findings.require(
            put.status_code in (200, 202), "answered", f"{place}: {put.status_code} {put.text[:300]}"
        )
        return put.status_code in (200, 202)

    def _verdict(self, user: User, path: str, place: str, began: float, size: int) -> dict[str, Any]:
        most = MOST_SECONDS + size / 10**6
        while True:
            answer = user.http.get(path, headers={"Prefer": "wait=20"}, timeout=60)
            self._require_no_bug(answer, place)
            shown = dict(answer.raise_for_status().json())
            if shown["status"] != "inspecting":
                return shown
            if time.monotonic() - began > most:
                self._findings.violation("time is bounded", f"{place}: still {shown['status']} after {most:.0f} s")
                return shown

    def _judge(self, shown: dict[str, Any], case: Case, place: str) -> None:
        problem = shown["problem"] or {}
        self.verdicts[problem.get("code") or shown["status"]] += 1
        wanted = ("ready", "rejected") if case.verdict is None else (case.verdict,)
        self._findings.require(shown["status"] in wanted, "gets a verdict", f"{place}: {shown['status']} {problem}")
        if shown["status"] == "rejected":
            blamed = problem.get("fault") == "service" or problem.get("code") in ("poison", "engine_crashed")
            self._findings.require(not blamed, "gets a verdict", f"{place}: blamed on the service: {problem}")
            self._findings.require(bool(problem.get("detail")), "gets a verdict", f"{place}: says nothing: {problem}")

    def _require_no_bug(self, answer: httpx.Response, place: str) -> None:
        """No 5xx, no inner workings in the answer, and an answer of bounded length."""
        text = answer.text
        self._findings.require(answer.status_code < 500, "no 5xx", f"{place}: {answer.status_code} {text[:300]}")
        inner = (str(self._target.whole.data), "Traceback", "dsk_", "site-packages", "worker/distillation")
        self._findings.require(not any(word in text for word in inner), "nothing leaks", f"{place}: {text[:800]}")
        self._findings.require(len(text) < MOST_TEXT, "answers are short", f"{place}: {len(text)} characters")

    def _look_for_traces(self, case: Case) -> None:
        with self._next:
            fresh = [trace for trace in self._canary.traces() if trace not in self._seen]
            self._seen += fresh
        for trace in fresh:
            self._findings.violation("nothing is executed", f"{trace}, seen after {case.family}, {case.name}")
        now = resident_bytes(self._watch.api)
        self._findings.require(
            now < API_BYTES, "API memory", f"{now / MEGABYTE:.0f} MB after {case.family}, {case.name}"
        )

    def _send_good(self, case: Case) -> None:
        try:
            self.good.append(self._target.send_good_upload())
        except (AssertionError, httpx.HTTPError) as error:
            self._findings.violation(
                "answers a good request after each", f"after {case.family}, {case.name}: {error!r}"[:500]
            )

    def _after(self, idle: int) -> None:
        """What holds when all is over: no process, no blob of a rejected file, one attempt for each upload."""
        self._findings.require(
            self._watch.settled(idle),
            "no process is left",
            f"{self._watch.count()} processes of the workers, {idle} before",
        )
        with Session(self._target.service.engine) as session:
            rows = session.execute(select(Inspection.id, Inspection.subject_id, Inspection.attempt)).all()
        peaks: dict[str, int] = {}
        for row in rows:
            if row.subject_id not in self.sizes:
                continue
            place, size = self.sizes[row.subject_id]
            self._findings.require(row.attempt < 2, "is not tried again", f"{place}: {row.attempt} attempts")
            if peak := self._watch.engines.get(row.id):
                peaks[place] = peak
                most = ENGINE_BYTES + TIMES_UPLOAD * size
                self._findings.require(peak <= most, "inspection memory", f"{place}: {peak / MEGABYTE:.0f} MB")
        self._report(peaks)

    def _report(self, peaks: dict[str, int]) -> None:
        largest = max(peaks, key=peaks.__getitem__, default="")
        slowest = max(self.seconds, key=self.seconds.__getitem__, default="")
        self._findings.note(
            "uploads",
            files=sum(self.sent.values()),
            by_family=dict(sorted(self.sent.items())),
            verdicts=dict(self.verdicts.most_common()),
            median_seconds=round(statistics.median(self.seconds.values()), 2) if self.seconds else None,
            slowest=f"{slowest}: {self.seconds.get(slowest, 0):.1f} s",
            engine_peak_mb=f"{peaks.get(largest, 0) / MEGABYTE:.0f} ({largest})",
            engine_median_mb=round(statistics.median(peaks.values()) / MEGABYTE) if peaks else None,
            good_uploads=len(self.good),
            good_upload_slowest_seconds=round(max(self.good, default=0), 1),
            traces=len(self._seen),
        )
