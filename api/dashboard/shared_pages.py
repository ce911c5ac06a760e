"""Parts of pages that many browsers poll: those with the same question share about one answer a second."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from api.http.batches import Batches

FRESH_SECONDS = 0.85
"""Below the time for which a session is known, so that a shared read renews the sessions before each is read on its own; and below
the second that a page waits after an event before it asks for a part, so that no part is older than its event."""
MOST_KEPT = 200


class SharedPages:
    """Answers by question. A question that was answered a moment ago gets the same answer; one that is being answered since a
    moment ago waits for that answer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._kept: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._running: dict[Hashable, tuple[float, asyncio.Task[Any]]] = {}
        self._batches: Batches[_Question, Any] = Batches(lambda asked: [_answered(one) for one in asked], 50)

    async def read(self, name: Hashable, answer: Callable[[], Any], seconds: float = FRESH_SECONDS) -> Any:
        """The answer to the question `name`, made by `answer` in a thread if none began less than `seconds` ago."""
        at, found = self._kept.get(name, (-seconds, None))
        if self._clock() - at < seconds:
            return found
        began, task = self._running.get(name, (-seconds, None))
        if task is None or self._clock() - began >= seconds:
            began = self._clock()
            task = asyncio.create_task(self._ask(_Question(name, answer), began))
            self._running[name] = began, task
            task.add_done_callback(lambda done: self._ended(name, done))
        return await asyncio.shield(task)  # a browser that goes must not end the answer of another

    async def _ask(self, question: "_Question", began: float) -> Any:
        found = await self._batches.ask(question)
        self._kept.pop(question.name, None)
        self._kept[question.name] = began, found
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return found

    def _ended(self, name: Hashable, task: asyncio.Task[Any]) -> None:
        if self._running.get(name, (0.0, None))[1] is task:
            del self._running[name]
        if not task.cancelled():
            task.exception()  # else asyncio complains about it if all its browsers have gone

    def last(self, name: Hashable) -> Any:
        """The last answer to a question, however old; None if it is not kept."""
        return self._kept.get(name, (0.0, None))[1]


class _Question:
    """A name and what answers it. Two with the same name are equal."""

    def __init__(self, name: Hashable, answer: Callable[[], Any]):
        self.name, self.answer = name, answer

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Question) and other.name == self.name


def _answered(question: _Question) -> Any:
    try:
        return question.answer()
    except Exception as error:  # noqa: BLE001 - whoever asked raises it
        return error
