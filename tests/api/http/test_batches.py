"""Batches: what is asked while one runs is done together in the next."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from api.http.batches import Batches


class Doubling:
    """Doubles numbers, when it is allowed to; negative ones fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.allowed = threading.Event()

    def run(self, asked: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(asked))
        self.allowed.wait(10)
        if 0 in asked:
            raise ZeroDivisionError
        return [2 * one if one > 0 else ValueError(str(one)) for one in asked]


async def asked(batches: Batches[int, int], *numbers: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(batches.ask(number)) for number in numbers]
    await asyncio.sleep(0.05)
    return tasks


def test_what_is_asked_during_a_batch_is_in_the_next_and_equal_questions_are_asked_once() -> None:
    async def scenario() -> None:
        doubling = Doubling()
        batches = Batches(doubling.run, most=3)
        first = await asked(batches, 1, 2)
        later = await asked(batches, 1, 3, 1, 4, 5)
        doubling.allowed.set()
        assert await asyncio.gather(*first, *later) == [2, 4, 2, 6, 2, 8, 10]
        assert doubling.batches == [[1, 2], [1, 3, 4], [5]]

    asyncio.run(scenario())


def test_a_failure_belongs_to_its_question_and_a_failed_batch_to_all_of_it() -> None:
    async def scenario() -> None:
        doubling = Doubling()
        doubling.allowed.set()
        batches = Batches(doubling.run, most=8)
        good, bad = await asked(batches, 1, -1)
        assert await good == 2
        with pytest.raises(ValueError, match="-1"):
            await bad
        for task in await asked(batches, 0, 7):
            with pytest.raises(ZeroDivisionError):
                await task
        assert await batches.ask(4) == 8

    asyncio.run(scenario())


def test_a_client_that_has_gone_disturbs_nobody() -> None:
    async def scenario() -> None:
        doubling = Doubling()
        batches = Batches(doubling.run, most=8)
        gone, stays = await asked(batches, 1, 2)
        gone.cancel()
        await asyncio.sleep(0)
        doubling.allowed.set()
        assert await stays == 4

    asyncio.run(scenario())
