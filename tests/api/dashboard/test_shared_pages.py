"""Polled parts of pages: one answer a second, whoever asks."""

import asyncio
import threading

import pytest

from api.dashboard.scatter import Mark, pareto, scatter
from api.dashboard.shared_pages import FRESH_SECONDS, SharedPages
from api.jobs.curves import thinned


def test_fifty_browsers_cost_one_answer_a_second() -> None:
    clock = [0.0]
    asked: list[float] = []

    def answer() -> int:
        asked.append(clock[0])
        return len(asked)

    async def poll() -> list[int]:
        pages = SharedPages(lambda: clock[0])
        found = []
        for _ in range(3):
            found += await asyncio.gather(*(pages.read("jobs", answer) for _ in range(50)))
            clock[0] += FRESH_SECONDS / 2
        return found

    found = asyncio.run(poll())
    assert asked == [0.0, FRESH_SECONDS] and found == [1] * 100 + [2] * 50


def test_browsers_that_come_while_an_answer_is_made_wait_for_it() -> None:
    clock, asked, goes_on = [0.0], [], threading.Event()

    def answer() -> int:
        asked.append(clock[0])
        assert goes_on.wait(30)
        return len(asked)

    async def poll() -> list[int]:
        pages = SharedPages(lambda: clock[0])
        waiting = []
        for at in (0.0, 0.1, FRESH_SECONDS):  # the last one must not be given an answer that began so long ago
            clock[0] = at
            waiting.append(asyncio.create_task(pages.read("jobs", answer)))
            while not asked:
                await asyncio.sleep(0)
        waiting.pop(1).cancel()
        goes_on.set()
        return [await one for one in waiting]

    assert asyncio.run(poll()) == [1, 2] and asked == [0.0, FRESH_SECONDS]


def test_different_questions_get_their_own_answers_and_errors_are_raised() -> None:
    async def ask() -> None:
        pages = SharedPages()
        assert await asyncio.gather(pages.read("a", lambda: 1), pages.read("b", lambda: 2)) == [1, 2]
        for _ in range(2):  # an error is not kept
            with pytest.raises(ZeroDivisionError):
                await pages.read("c", lambda: 1 // 0)
        assert await pages.read("c", lambda: 3) == 3

    asyncio.run(ask())


def test_the_front_holds_what_no_other_beats_in_both() -> None:
    marks = [Mark("dear", "", 9.0, 0.9), Mark("cheap", "", 1.0, 0.5), Mark("beaten", "", 5.0, 0.4), Mark("middle", "", 4.0, 0.8)]  # fmt: skip
    assert [mark.name for mark in pareto(marks) if mark.best] == ["cheap", "middle", "dear"]
    chart = scatter(marks, "bytes", "accuracy")
    assert chart is not None and len(chart["front"].split()) == 3
    assert scatter(marks[:1], "bytes", "accuracy") is None


@pytest.mark.parametrize("count", [0, 1, 599, 600, 601, 1199, 1201, 5000])
def test_thinning_keeps_first_and_last(count: int) -> None:
    kept = thinned(list(range(count)))
    assert len(kept) <= 600 and kept == sorted(set(kept))
    assert not count or (kept[0], kept[-1]) == (0, count - 1)
