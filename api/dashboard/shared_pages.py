"""Parts of pages that many browsers poll: those with the same question share about one answer a second."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from api.http.batches import Batches

FRESH_SECONDS = 0.85
"""Below the time for which a session is known, so that the read of a list renews the sessions before each is read on its own."""
MOST_KEPT = 200


class SharedPages:
    """Answers by question. A question that was answered less than `FRESH_SECONDS` ago gets the same answer; questions that
    arrive while it is being answered wait for it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._kept: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._batches: Batches[_Question, Any] = Batches(lambda asked: [_answered(one) for one in asked], 50)

    async def read(self, name: Hashable, answer: Callable[[], Any]) -> Any:
        """The answer to the question `name`, made by `answer` in a thread if none is fresh."""
        at, found = self._kept.get(name, (-FRESH_SECONDS, None))
        if self._clock() - at < FRESH_SECONDS:
            return found
        began = self._clock()
        found = await self._batches.ask(_Question(name, answer))
        self._kept.pop(name, None)
        self._kept[name] = began, found
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return found


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
