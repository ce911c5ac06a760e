"""Lists of jobs that clients share if they accept an older one."""

import asyncio
from collections.abc import Callable

import pytest

from api.http.errors import BadCursor
from api.http.paging import Window
from api.jobs import shared_lists
from api.jobs.shared_lists import Listed, SharedLists, accepted_age
from models.records import Job
from tests.api.service import User
from tests.worker.scenes import get, make_job


class Scene:
    """A key's jobs, their lists in this process, and a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.job = make_job()
        self.key = get(Job, self.job).key_id
        self.lists = SharedLists(lambda: self.now)

    async def page(self, max_age: float, limit: int = 10, cursor: str | None = None) -> Listed:
        return await self.lists.page(self.key, Window(limit, cursor), (), max_age)


@pytest.fixture
def scene(configure: Callable[..., object], migrated_sqlite: str) -> Scene:
    return Scene()


@pytest.mark.parametrize(
    ("header", "age"),
    [
        (None, 0),
        ("", 0),
        ("no-cache", 0),
        ("max-age=1", 1),
        ("no-transform, Max-Age = 3", 3),
        ("max-age=99", 10),
        ("s-max-age=4", 0),
    ],
)
def test_the_age_that_a_request_accepts(header: str | None, age: float) -> None:
    assert accepted_age(header) == age


def test_clients_that_accept_its_age_share_a_read(scene: Scene) -> None:
    async def play() -> None:
        first = await scene.page(1.0)
        make_job(key_id=scene.key)
        scene.now += 0.9
        assert await scene.page(1.0) == Listed(first.body, pytest.approx(0.9))
        assert (await scene.page(0.5)).body != first.body
        make_job(key_id=scene.key)
        assert (await scene.page(0.0)).body != (await scene.page(1.0)).body
        scene.lists.changed()
        assert (await scene.page(1.0)).body == (await scene.page(0.0)).body

    asyncio.run(play())


def test_requests_at_the_same_time_share_a_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, original = [], shared_lists.service.page

    def page(*arguments: object) -> object:
        reads.append(arguments)
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(shared_lists.service, "page", page)

    async def play() -> None:
        assert len({each.body for each in await asyncio.gather(*(scene.page(1.0) for _ in range(50)))}) == 1

    asyncio.run(play())
    assert len(reads) == 1


def test_an_error_is_not_kept_and_pages_are_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        with pytest.raises(BadCursor):
            await scene.page(1.0, cursor="!")
        assert scene.lists._reads == {}
        size = len((await scene.page(1.0)).body)
        monkeypatch.setattr(shared_lists, "MOST_BYTES", 3 * size)
        for limit in range(1, 8):
            await scene.page(1.0, limit)
        assert len(scene.lists._reads) == 3 and scene.lists._bytes == 3 * size

    asyncio.run(play())


def test_a_list_shows_what_its_client_has_changed(user: User) -> None:
    accepts = {"Cache-Control": "max-age=10"}
    job = user.job("queued")
    assert [each["id"] for each in user.http.get("/jobs", headers=accepts).json()["data"]] == [job]
    another = user.job("queued")
    shared = user.http.get("/jobs", headers=accepts)
    assert [each["id"] for each in shared.json()["data"]] == [job] and int(shared.headers["Age"]) <= 10
    assert [each["id"] for each in user.http.get("/jobs").json()["data"]] == [another, job]
    user.http.post(f"/jobs/{job}/cancel").raise_for_status()
    statuses = {each["id"]: each["status"] for each in user.http.get("/jobs", headers=accepts).json()["data"]}
    assert statuses == {job: "cancelled", another: "queued"}
    change_of_key = user.http.get("/jobs", params={"status": "queued"}, headers=accepts).json()["data"]
    assert [each["id"] for each in change_of_key] == [another]


def test_another_key_gets_its_own_list(user: User, other: User) -> None:
    accepts = {"Cache-Control": "max-age=10"}
    user.job("queued")
    assert len(user.http.get("/jobs", headers=accepts).json()["data"]) == 1
    assert other.http.get("/jobs", headers=accepts).json()["data"] == []
