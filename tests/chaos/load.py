"""The users of a campaign: they upload, submit every job several times, and cancel some."""

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.history import History
from tests.chaos.specs import VARIANTS, draw, needs_data
from tests.integration.whole import TEACHER

OPEN_AT_ONCE = 24
"""Number of jobs that wait or run at a time, so that submissions coincide with faults during the whole campaign."""
LATE_SECONDS = 10.0
GIVE_UP_SECONDS = 180.0
BUSY = frozenset({429, 502, 503, 504, 507})


@dataclass
class Order:
    """One job that a user wants: the number of its POSTs, whether one is repeated much later, and when it is
    cancelled (seconds after acceptance)."""

    number: int
    variant: str
    copies: int
    late: bool
    cancel_after: float | None
    fresh_inputs: bool
    answers: set[str] = field(default_factory=set)
    """Ids of the jobs in the answers to its POSTs."""
    cancel_accepted: bool = False
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"order-{self.number}"

    @property
    def spec(self) -> dict[str, Any]:
        return VARIANTS[self.variant] | self.inputs | {"labels": {"order": str(self.number)}}


def orders(dice: random.Random, count: int, variants: Sequence[str]) -> list[Order]:
    """The orders of a seed."""
    return [
        Order(
            number,
            draw(dice, variants),
            copies=dice.choice((1, 2, 3)),
            late=dice.random() < 0.2,
            cancel_after=dice.uniform(0, 8) if dice.random() < 0.08 else None,
            fresh_inputs=dice.random() < 0.05,
        )
        for number in range(count)
    ]


class Users:
    """Threads that use only the API and survive its failures."""

    def __init__(self, url: str, key: str, inputs: Path, history: History):
        limits = httpx.Limits(max_connections=40)
        self.http = httpx.Client(
            base_url=f"{url}/v1/",
            headers={"Authorization": f"Bearer {key}"},
            timeout=30,
            limits=limits,
            trust_env=False,
        )
        self._files, self._history = inputs, history
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(32, thread_name_prefix="user")
        self._promised: list[Future[None]] = []
        self.posts, self.open, self.answered_at = 0, OPEN_AT_ONCE, 0.0

    def rest(self) -> None:
        """Stop sending, after the requests scheduled for later are done."""
        for later in self._promised:
            later.result()

    def close(self) -> None:
        self._over.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.http.close()

    def send(self, method: str, path: str, accept: tuple[int, ...] = (), **options: Any) -> httpx.Response:
        """Repeat a request until the answer is a success or a status in `accept`."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline and not self._over.is_set():
            try:
                answer = self.http.request(method, path, **options)
            except httpx.TransportError:
                time.sleep(0.3)
                continue
            self.answered_at = time.monotonic()
            if answer.is_success or answer.status_code in accept:
                return answer
            if answer.status_code not in BUSY and "in-flight" not in answer.text:
                raise Unexpected(f"{method} {path} was answered with {answer.status_code}: {answer.text[:500]}")
            time.sleep(0.3)
        raise Unexpected(f"{method} {path} got no answer in {GIVE_UP_SECONDS:.0f} s")

    def upload(self, kind: str, file: str, **spec: Any) -> str:
        """Upload without waiting for the inspection; returns the id."""
        record = self.send("POST", kind, json={"name": file} | spec).json()
        link = record["upload"].partition("/v1/")[2]
        headers = {"Content-Type": "application/octet-stream"}
        # 409: an earlier PUT, whose answer was lost, has delivered the bytes
        self.send("PUT", link, (409,), content=(self._files / file).read_bytes(), headers=headers)
        return str(record["id"])

    def inputs(self) -> dict[str, str]:
        """Upload a teacher and a dataset without waiting for their inspections."""
        teacher = self.upload("teachers", "teacher.safetensors", **TEACHER)
        return {"teacher": teacher, "dataset": self.upload("datasets", "images.npz")}

    def ready(self, ids: dict[str, str]) -> bool:
        """Whether the uploads are ready."""
        shown = [self.send("GET", f"{kind}s/{id}").json() for kind, id in ids.items()]
        rejected = [upload for upload in shown if upload["status"] == "rejected"]
        if rejected:
            raise Unexpected(f"valid uploads were rejected: {rejected}")
        return all(upload["status"] == "ready" for upload in shown)

    def submit_all(self, wanted: list[Order], inputs: dict[str, str]) -> None:
        """Submit the orders in turn, with a limited number of open jobs."""
        for order in wanted:
            while self.count_open() >= OPEN_AT_ONCE and not self._over.wait(0.5):
                pass
            self._guarded(self._submit, order, inputs)

    def count_open(self) -> int:
        """The number of jobs that wait or run."""
        query = {"status": ["queued", "running"], "limit": "100"}
        try:
            self.open = len(self.send("GET", "jobs", params=query).json()["data"])
        except Unexpected as error:
            self._history.violation(str(error))
        return self.open

    def _submit(self, order: Order, inputs: dict[str, str]) -> None:
        chosen = self.inputs() if order.fresh_inputs else inputs
        order.inputs = chosen if needs_data(order.variant) else {"teacher": chosen["teacher"]}
        posts = [self._pool.submit(self._post, order) for _ in range(order.copies)]
        order.answers.update(post.result() for post in posts)
        self._history.note("accepted", order=order.number, variant=order.variant, jobs=sorted(order.answers))
        if order.cancel_after is not None:
            self._later(order.cancel_after, self._cancel, order)
        if order.late:
            self._later(LATE_SECONDS, self._post_again, order)

    def _later(self, seconds: float, act: Any, order: Order) -> None:
        def wait() -> None:
            self._over.wait(seconds)
            self._guarded(act, order)

        self._promised.append(self._pool.submit(wait))

    def _guarded(self, act: Any, *arguments: Any) -> None:
        try:
            act(*arguments)
        except Unexpected as error:
            if not self._over.is_set():
                self._history.violation(str(error))

    def _post(self, order: Order) -> str:
        self.posts += 1
        return str(self.send("POST", "jobs", json=order.spec, headers={"Idempotency-Key": order.key}).json()["id"])

    def _post_again(self, order: Order) -> None:
        order.answers.add(self._post(order))

    def _cancel(self, order: Order) -> None:
        for job in sorted(order.answers):
            answer = self.send("POST", f"jobs/{job}/cancel", (409,))
            order.cancel_accepted |= answer.is_success
            self._history.note("cancel", order=order.number, job=job, answer=answer.status_code)


class Unexpected(Exception):
    """An answer that no user should ever get."""
