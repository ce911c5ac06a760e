"""Parts of pages that many browsers poll: those with the same question share about one answer a second."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from api.http.batches import Batches

FRESH_SECONDS = 0.8
"""Below the time for which a session is known, so that a shared read renews the sessions before each is read on its own; and below
the second that a page waits after an event before it asks for a part, so that no part is older than its event."""
MOST_KEPT = 200


class SharedPages:
    """Answers by question. A question that was answered a moment ago gets the same answer; questions that arrive while it is
    being answered wait for the next one together."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._kept: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._batches: Batches[_Question, Any] = Batches(lambda asked: [_answered(one) for one in asked], 50)

    async def read(self, name: Hashable, answer: Callable[[], Any], seconds: float = FRESH_SECONDS) -> Any:
        """The answer to the question `name`, made by `answer` in a thread if none began less than `seconds` ago."""
        at, found = self._kept.get(name, (-seconds, None))
        if self._clock() - at < seconds:
            return found
        began = self._clock()
        found = await self._batches.ask(_Question(name, answer))
        self._kept.pop(name, None)
        self._kept[name] = began, found
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return found

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
