"""Polls of one job by many clients: what they share, how old it may be, and what a lone client sees."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from api.http.errors import NotFound
from api.jobs.crowds import CROWD, RECENT_SECONDS, REFRESH_SECONDS, Crowds
from api.jobs.shared_reads import SharedReads, Shown
from models.records import Job
from tests.api.service import User
from tests.worker.scenes import change, get, make_job


class Scene:
    """A running job, its crowd in this process, and a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.job = make_job()
        self.key = get(Job, self.job).key_id
        self.crowds = Crowds(SharedReads(), lambda: self.now)

    async def read(self, known: str | None = None) -> Shown:
        return await self.crowds.read(self.key, self.job, known)

    async def gather(self, known: str | None = None, count: int = CROWD) -> Shown:
        """The answer that this many clients get at once."""
        shown = await asyncio.gather(*(self.read(known) for _ in range(count)))
        assert len(set(shown)) == 1
        return shown[0]

    def change(self) -> None:
        change(Job, self.job, version=Job.version + 1)


@pytest.fixture
def scene(configure: Callable[..., object], migrated: str) -> Scene:
    return Scene()


def test_a_crowd_shares_a_read_for_a_quarter_of_a_second(scene: Scene) -> None:
    async def play() -> None:
        first = await scene.gather()
        scene.change()
        scene.now += REFRESH_SECONDS / 2
        assert await scene.read() == first
        assert await scene.read(first.tag) == first._replace(body=None)
        scene.now = 100 + RECENT_SECONDS
        newer = await scene.read()
        assert newer.tag != first.tag and newer.body != first.body

    asyncio.run(play())


def test_a_client_that_polls_alone_sees_every_change(scene: Scene) -> None:
    async def play() -> None:
        seen = set()
        for _ in range(3 * CROWD):
            scene.change()
            seen.add((await scene.read()).tag)
        await scene.gather(count=CROWD - 1)
        scene.change()
        seen.add((await scene.read()).tag)
        assert len(seen) == 3 * CROWD + 1

    asyncio.run(play())


def test_a_change_by_this_process_is_seen_at_once(scene: Scene) -> None:
    async def play() -> None:
        first = await scene.gather()
        scene.change()
        scene.crowds.changed()
        assert (await scene.read()).tag != first.tag

    asyncio.run(play())


def test_a_change_during_a_read_is_seen_after_it(scene: Scene) -> None:
    async def play() -> None:
        reading = asyncio.create_task(scene.gather())
        while sum(scene.crowds._asking.values()) < CROWD:
            await asyncio.sleep(0)
        scene.crowds.changed()
        await reading
        scene.change()
        assert (await scene.read()).tag != reading.result().tag

    asyncio.run(play())


def test_a_read_is_renewed_before_it_is_too_old_while_the_crowd_lasts(scene: Scene) -> None:
    async def play() -> None:
        first = await scene.gather()
        scene.change()
        scene.now += REFRESH_SECONDS + 0.01
        for _ in range(CROWD):
            assert await scene.read() == first
        await asyncio.gather(*scene.crowds._refreshes)
        scene.now = 100 + RECENT_SECONDS
        second = await scene.read()
        assert second.tag != first.tag and second.body is not None
        scene.change()
        assert (await scene.read()).tag == second.tag  # the renewed read is younger than the first
        await asyncio.gather(*scene.crowds._refreshes)
        assert (await scene.read()).tag == second.tag  # two requests are no crowd, so it was not renewed
        scene.now += RECENT_SECONDS
        assert (await scene.read()).tag != second.tag

    asyncio.run(play())


def test_a_crowd_that_knows_the_job_has_no_body_for_those_who_do_not(scene: Scene) -> None:
    async def play() -> None:
        tag = (await scene.read()).tag
        assert (await scene.gather(tag)).body is None
        assert (await scene.read()).body is not None
        await scene.gather()
        scene.now += REFRESH_SECONDS + 0.01
        await asyncio.gather(*(scene.read(tag) for _ in range(CROWD)))
        await asyncio.gather(*scene.crowds._refreshes)
        assert (await scene.read()).body is not None

    asyncio.run(play())


def test_another_key_sees_nothing_of_a_crowd(scene: Scene) -> None:
    other = get(Job, make_job()).key_id

    async def play() -> None:
        await scene.gather()
        with pytest.raises(NotFound):
            await scene.crowds.read(other, scene.job, None)

    asyncio.run(play())


def test_no_answer_is_older_than_a_quarter_of_a_second_before_its_request(user: User) -> None:
    job, written, over = user.job("running", version=1), [(0.0, 1)], threading.Event()

    def poll(number: int) -> int:
        with httpx.Client(base_url=f"{user.service.url}/v1", headers=user.http.headers, trust_env=False) as client:
            count = 0
            while not over.is_set():
                asked_at = time.monotonic()
                version = client.get(f"/jobs/{job}").json()["version"]
                assert version >= max(each for at, each in list(written) if at <= asked_at - RECENT_SECONDS)
                count += 1
            return count

    with ThreadPoolExecutor(2 * CROWD) as pool:
        polls = [pool.submit(poll, number) for number in range(2 * CROWD)]
        try:
            for version in range(2, 12):
                user.change(job)
                written.append((time.monotonic(), version))
                time.sleep(0.1)
        finally:
            over.set()
        assert sum(each.result() for each in polls) > 2 * CROWD


@pytest.mark.parametrize("ends", ["cancel", "delete"])
def test_a_crowd_sees_a_cancel_and_a_deletion_at_once(user: User, ends: str) -> None:
    job, over = user.job("queued" if ends == "cancel" else "failed"), threading.Event()

    def poll() -> None:
        with httpx.Client(base_url=f"{user.service.url}/v1", headers=user.http.headers, trust_env=False) as client:
            while not over.is_set():
                client.get(f"/jobs/{job}")

    with ThreadPoolExecutor(2 * CROWD) as pool:
        for _ in range(2 * CROWD):
            pool.submit(poll)
        try:
            time.sleep(0.3)
            if ends == "cancel":
                user.http.post(f"/jobs/{job}/cancel").raise_for_status()
                assert user.http.get(f"/jobs/{job}").json()["status"] == "cancelled"
            else:
                user.http.delete(f"/jobs/{job}").raise_for_status()
                assert user.http.get(f"/jobs/{job}").status_code == 404
        finally:
            over.set()
