"""Authentication, and the first key of a new database."""

import stat
import threading
import time

import httpx
import pytest
from sqlalchemy import func, select

from api.access.auth import FIRST_KEY_ID, authenticate, ensure_first_key, hash_key, make_key
from api.http.errors import Unauthorised
from models.database import transaction
from models.records import Key
from models.settings import settings
from tests.api.service import Service, User, problem


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer dsk_",
        "Basic dsk_aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "Bearer dsk_" + "a" * 43,
        "Bearer \xe9",
    ],
)
def test_every_request_without_a_valid_key_is_a_401(embedded: Service, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    for path in ("/v1/jobs", "/v1/teachers/x", "/v1/catalogue", "/v1/jobs/x/events"):
        response = httpx.get(embedded.url + path, headers=headers, trust_env=False)
        problem(response, 401, "unauthorised")
        assert response.headers["www-authenticate"].startswith("Bearer")


def test_expired_and_revoked_keys_are_rejected(service: Service) -> None:
    now = time.time()
    for values, status in (
        ({"expires_at": now - 5}, 401),
        ({"revoked_at": now - 5}, 401),
        ({"expires_at": now + 500}, 200),
    ):
        with service.user(**values) as user:
            assert user.http.get("/jobs").status_code == status


def test_the_scheme_is_case_insensitive_and_the_use_is_recorded(user: User) -> None:
    headers = {"Authorization": f"bearer  {user.key}"}
    assert user.http.get("/jobs", headers=headers).is_success
    give_up = time.monotonic() + 20
    used = None
    while used is None and time.monotonic() < give_up:
        with user.service.rows() as session:
            used = session.scalars(select(Key.last_used_at).where(Key.id == user.key_id)).one()
        time.sleep(0.05)
    assert used is not None and abs(used - time.time()) < 30


def test_only_the_hash_of_a_key_is_stored(user: User) -> None:
    with user.service.rows() as session:
        kept = session.get_one(Key, user.key_id)
        assert kept.hash == hash_key(user.key)
        assert user.key not in repr(vars(kept))


def test_concurrent_starts_create_one_first_key(migrated: str) -> None:
    made: list[bool] = []
    threads = [threading.Thread(target=lambda: made.append(ensure_first_key())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(Key)) == 1
    file = settings().key_file
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert authenticate(f"Bearer {file.read_text().strip()}").key_id == FIRST_KEY_ID
    assert [one.name for one in file.parent.iterdir() if "key" in one.name] == ["key"]


def test_no_first_key_is_created_if_there_is_a_key(migrated_sqlite: str) -> None:
    with transaction() as session:
        session.add(Key(id="key_1", name="mine", hash=hash_key(make_key()), scopes=[]))
    assert not ensure_first_key()
    assert not settings().key_file.exists()
    with pytest.raises(Unauthorised):
        authenticate(f"Bearer {make_key()}")


def test_the_first_start_writes_a_valid_key(embedded: Service) -> None:
    key = (embedded.data / "key").read_text().strip()
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{embedded.url}/v1/jobs", headers=headers, trust_env=False).is_success
