"""Work that concurrent requests share: what is asked while a batch runs is done together in the next one.

A batch begins after everything in it was asked, so no answer is older than its request.
"""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from itertools import islice
from typing import Generic, TypeVar

import structlog
from starlette.concurrency import run_in_threadpool

A = TypeVar("A", bound=Hashable)
R = TypeVar("R")


class Batches(Generic[A, R]):
    """Runs batches, one at a time, in a thread. Equal questions are asked once.

    `run` gives the results in the order of the questions, an exception where one fails; if it raises, all of the batch fail.
    """

    def __init__(self, run: Callable[[Sequence[A]], Sequence[R | Exception]], most: int):
        self._run_batch = run
        self._most = most
        self._waiting: dict[A, list[asyncio.Future[R]]] = {}
        self._runner: asyncio.Task[None] | None = None

    async def ask(self, asked: A) -> R:
        """The result of a batch that begins after this call."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(asked, []).append(future)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        structlog.contextvars.clear_contextvars()  # of the request that came first
        while self._waiting:
            await asyncio.sleep(0)  # so that requests that have already arrived join
            batch = {asked: self._waiting.pop(asked) for asked in list(islice(self._waiting, self._most))}
            try:
                results: Sequence[R | Exception] = await run_in_threadpool(self._run_batch, list(batch))
            except Exception as error:  # noqa: BLE001 - every request of the batch raises it
                results = [error] * len(batch)
            for futures, result in zip(batch.values(), results, strict=True):
                for future in futures:
                    _settle(future, result)


def _settle(future: asyncio.Future[R], result: R | Exception) -> None:
    if future.done():  # its client has gone
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
