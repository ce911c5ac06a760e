"""Callers that a process knows: a revocation is seen within a second by every process, and at once by the one that revokes."""

import time

import pytest

from api.access.known_keys import KNOWN_SECONDS, MAX_KNOWN, KnownKeys
from models.records import Key
from tests.api.service import User, problem


def test_callers_are_known_for_less_than_a_second() -> None:
    now = 100.0
    keys = KnownKeys[str](lambda: now)
    keys.keep("digest", "caller", read_at=now)
    now += KNOWN_SECONDS - 0.01
    assert keys.get("digest") == "caller"
    now += 0.02
    assert keys.get("digest") is None and KNOWN_SECONDS < 1


def test_the_age_of_a_caller_counts_from_before_the_query() -> None:
    keys = KnownKeys[str](lambda: 100.0)
    keys.keep("digest", "caller", read_at=100.0 - KNOWN_SECONDS)
    assert keys.get("digest") is None


def test_the_number_of_known_callers_is_bounded() -> None:
    keys = KnownKeys[int](lambda: 100.0)
    for number in range(MAX_KNOWN + 10):
        keys.keep(str(number), number, read_at=100.0)
    assert keys.get("9") is None and keys.get("10") == 10
    keys.forget()
    assert keys.get("10") is None


@pytest.mark.parametrize("path", ["/jobs/{job}", "/jobs"])
def test_a_key_that_another_process_revokes_is_refused_within_a_second(user: User, path: str) -> None:
    path = path.format(job=user.job("running"))
    assert user.http.get(path).status_code == 200
    with user.service.rows() as session:  # this process is not the API
        session.get_one(Key, user.key_id).revoked_at = time.time()
    revoked_at = last_accepted_at = time.monotonic()
    while True:
        asked_at = time.monotonic()
        response = user.http.get(path)
        if response.status_code != 200:
            break
        last_accepted_at = asked_at
    problem(response, 401)
    assert last_accepted_at - revoked_at < 1


@pytest.mark.parametrize("change", ["revoke", "rotate", "scopes"])
def test_the_process_that_changes_a_key_forgets_it_at_once(user: User, change: str) -> None:
    job = user.job("running")
    with user.service.user(scopes=["admin", "jobs:read", "jobs:write", "uploads:read", "uploads:write"]) as admin:
        assert user.http.get(f"/jobs/{job}").status_code == 200
        if change == "scopes":
            admin.http.patch(f"/keys/{user.key_id}", json={"scopes": ["jobs:write"]}).raise_for_status()
        else:
            admin.http.post(f"/keys/{user.key_id}/{change}").raise_for_status()
        problem(user.http.get(f"/jobs/{job}"), 403 if change == "scopes" else 401)


def test_every_poll_counts_once_whichever_way_it_takes(user: User) -> None:
    job = user.job("running")
    with user.service.user(limits={"requests_a_minute": 6}) as limited:
        mine = limited.job("running")
        for path in (f"/jobs/{mine}", f"/jobs/{mine}", f"/jobs/{job}", "/jobs"):  # the third is a 404
            last = limited.http.get(path)
        assert last.headers["RateLimit"].startswith('"requests";r=2;')
        assert [limited.http.get(f"/jobs/{mine}").status_code for _ in range(3)] == [200, 200, 429]
