"""Keys over HTTP and on the command line: scopes, changes, rotation, revocation, limits."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import pytest

from api.access.rates import MAX_NAMES, Rates
from api.access.scopes import SCOPES
from api.main import app
from models.records import Key
from tests.api.service import PLAIN, Service, User, pointers, problem

OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in app.openapi()["paths"].items()
    if path.startswith("/v1/")
    for method, operation in operations.items()
]
FOR_EVERY_KEY = {"get_own_key"}
JOB = {"teacher": None, "student": {"network": "lenet5_half", "classes": 10}}
BODIES: dict[str, Any] = {
    "create_key": {"name": "x", "scopes": ["jobs:read"]},
    "submit_job": JOB,
    "validate_job": JOB,
    "create_file": {"kind": "weights"},
    "create_dataset": {"name": "digits"},
    "create_teacher": {
        "network": "lenet5",
        "classes": 10,
        "input": {"channels": 1, "height": 32, "width": 32, "mean": [0.1], "std": [0.3]},
    },
}


def scopes_of(operation: dict[str, Any]) -> list[str]:
    [requirement] = operation["security"]
    [scopes] = requirement.values()
    return list(scopes)


def manager(service: Service, **values: Any) -> User:
    return service.user(**({"scopes": list(SCOPES)} | values))


def test_every_route_declares_its_scope_and_refuses_a_key_without_it(embedded: Service) -> None:
    assert len(OPERATIONS) > 35
    for scope in SCOPES:
        with embedded.user(scopes=[other for other in SCOPES if other != scope]) as user:
            for method, path, operation in OPERATIONS:
                name = operation["operationId"]
                needed = scopes_of(operation)
                assert (needed == []) == (name in FOR_EVERY_KEY), f"{method} {path} declares no scope"
                if scope not in needed:
                    continue
                address = embedded.url + path.replace("{identifier}", "x").replace("{name}", "x")
                body = {"json": BODIES[name]} if name in BODIES else {"json": {}} if method == "PATCH" else {}
                response = user.http.request(method, address.replace("{delivery}", "x"), **body)
                assert response.status_code == 403, f"{method} {path}: {response.text}"
                assert f'scope="{scope}"' in response.headers["www-authenticate"]
                if method != "HEAD":
                    assert scope in problem(response, 403, "forbidden")["detail"]


def test_the_life_cycle_of_a_key(service: Service) -> None:
    with manager(service) as admin:
        asked = {"name": "ci", "scopes": ["jobs:read", "jobs:write"], "expires_days": 2, "limits": {"queued_jobs": 7}}
        made = admin.http.post("/keys", json=asked)
        assert made.status_code == 201 and made.headers["cache-control"] == "no-store"
        key = made.json()
        with User(service, key["key"], key["id"]) as first:
            me = first.http.get("/keys/me").json()
            assert (me["scopes"], me["limits"]["queued_jobs"]) == (["jobs:read", "jobs:write"], 7)
            assert "key" not in me and key["key"] not in admin.http.get("/keys").text
            job = first.job("queued")
            rotated = admin.http.post(f"/keys/{key['id']}/rotate", json={"grace_seconds": 600}).json()
            assert rotated["id"] == key["id"] and first.http.get(f"/jobs/{job}").is_success
            with User(service, rotated["key"], key["id"]) as second:
                assert second.http.get("/keys/me").json()["used"]["queued_jobs"] == 1
                assert second.http.get(f"/jobs/{job}").is_success
                third = admin.http.post(f"/keys/{key['id']}/rotate").json()["key"]
                problem(first.http.get("/jobs"), 401)
                problem(second.http.get("/jobs"), 401)
            with User(service, third, key["id"]) as last:
                assert last.http.get("/jobs").is_success
                changed = admin.http.patch(f"/keys/{key['id']}", json={"scopes": ["jobs:write"]}).json()
                assert changed["scopes"] == ["jobs:write"] and changed["limits"]["queued_jobs"] == 7
                problem(last.http.get("/jobs"), 403)
                for _ in range(2):
                    assert admin.http.post(f"/keys/{key['id']}/revoke").json()["revoked_at"] is not None
                problem(last.http.post("/jobs", json={}), 401)
        problem(admin.http.post(f"/keys/{key['id']}/rotate"), 409)
        problem(admin.http.get("/keys/key_unknown"), 404)


def test_a_key_cannot_grant_more_than_it_has(embedded: Service) -> None:
    with (
        manager(embedded, scopes=["admin", "jobs:read"], limits={"running_jobs": 3}) as admin,
        embedded.user() as other,
    ):
        spec = {"name": "x", "scopes": ["jobs:read"]}
        problem(admin.http.post("/keys", json=spec | {"scopes": ["jobs:write"]}), 403)
        assert pointers(admin.http.post("/keys", json=spec | {"limits": {"running_jobs": 4}})) == [
            "/limits/running_jobs"
        ]
        made = admin.http.post("/keys", json=spec).json()
        assert made["limits"]["running_jobs"] == 3
        assert pointers(admin.http.patch(f"/keys/{made['id']}", json={"limits": {}})) == ["/limits/running_jobs"]
        problem(admin.http.patch(f"/keys/{made['id']}", json={"scopes": ["uploads:read"]}), 403)
        problem(admin.http.post(f"/keys/{other.key_id}/rotate"), 403)
        assert other.http.get("/jobs").is_success
        assert pointers(admin.http.post("/keys", json=spec | {"scopes": ["jobs:all"]})) == ["/scopes/0"]


def test_the_last_admin_key_cannot_be_revoked(migrated: str) -> None:
    from api.access.auth import OPERATOR
    from api.http.errors import Conflict
    from api.keys import service
    from api.keys.schemas import KeyEdit, KeySpec
    from models.database import transaction

    def make(name: str, scope: str) -> str:
        return service.create(OPERATOR, KeySpec(name=name, scopes=[scope])).id

    def end(key_id: str) -> bool:
        together.wait()
        try:
            service.revoke(key_id)
        except Conflict:
            return False
        return True

    left, together = make("a", "admin"), Barrier(2)
    make("c", "jobs:read")
    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            pair = (left, make("b", "admin"))
            assert sorted(pool.map(end, pair)) == [False, True]
            with transaction() as session:
                [left] = [key for key in pair if session.get_one(Key, key).revoked_at is None]
    with pytest.raises(Conflict, match="last key"):
        service.edit(OPERATOR, left, KeyEdit(scopes=["jobs:read"]))


@pytest.mark.slow
def test_the_command_line_creates_and_revokes_keys(embedded: Service, repository: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-m", "api.keys", *arguments]
        environment = {"DISTILL_DATA": str(embedded.data), "PYTHONPATH": str(repository)}
        return subprocess.run(command, env=environment, cwd=repository, capture_output=True, text=True, check=False)

    made = run("create", "--name", "ci", "--scopes", "jobs:read", "--expires-days", "90", "--limit", "running_jobs=2")
    assert made.returncode == 0, made.stderr
    headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
    me = httpx.get(f"{embedded.url}/v1/keys/me", headers=headers, trust_env=False).json()
    assert (me["scopes"], me["limits"]["running_jobs"]) == (["jobs:read"], 2)
    assert me["id"] in run("list").stdout
    wrong = run("create", "--name", "x", "--scopes", "jobs:eat")
    assert wrong.returncode == 1 and "/scopes/0: must be" in wrong.stderr and "Traceback" not in wrong.stderr
    assert run("revoke", me["id"]).returncode == 0
    assert httpx.get(f"{embedded.url}/v1/keys/me", headers=headers, trust_env=False).status_code == 401


def test_concurrent_submissions_respect_the_limit_of_queued_jobs(service: Service) -> None:
    with service.user(limits={"queued_jobs": 3, "highest_priority": 0}) as user:
        spec = {"teacher": user.teacher(), "student": {"network": "lenet5_half"}}
        with ThreadPoolExecutor(8) as pool:
            responses = list(pool.map(lambda _: user.http.post("/jobs", json=spec), range(8)))
        assert sorted(response.status_code for response in responses) == [202] * 3 + [429] * 5
        assert all(response.headers["retry-after"] for response in responses if response.status_code == 429)
        assert user.http.get("/keys/me").json()["used"]["queued_jobs"] == 3
        assert pointers(user.http.post("/jobs", json=spec | {"priority": 1})) == ["/priority"]


def test_a_job_says_what_it_waits_for(user: User) -> None:
    needs = {"gpus": 2, "gpu": "H100", "gpu_memory_gb": 80}
    spec = {"teacher": user.teacher(), "student": {"network": "lenet5_half"}, "dataset": user.dataset()}
    spec |= {"resources": needs}
    job = user.http.post("/jobs", json=spec).json()
    assert job["resolved"]["resources"] == needs, job
    user.change(job["id"], ready=True, reason=None)
    with user.service.rows() as session:
        from models.records import Worker
        from models.records.columns import new_id

        worker = Worker(id=new_id("wrk"), kind="distill", host="h", process=1, about={"devices": 4})
        session.add(worker)
    try:
        reason = user.http.get(f"/jobs/{job['id']}").json()["reason"]
        assert (
            reason
            == "waits for a worker with 2 GPUs called 'h100' with at least 80 GB each: no running worker has that"
        )
    finally:
        with user.service.rows() as session:
            session.delete(session.get_one(Worker, worker.id))
    assert pointers(user.http.post("/jobs", json=spec | {"resources": {"gpus": 0}})) == ["/resources/gpus"]


def test_a_key_with_too_many_requests_is_told_when_to_retry(embedded: Service) -> None:
    with embedded.user(limits={"requests_a_minute": 3}) as limited, embedded.user() as other:
        for left in (2, 1, 0):
            response = limited.http.get("/jobs")
            assert response.is_success and response.headers["ratelimit-policy"] == '"requests";q=3;w=60'
            assert response.headers["ratelimit"].startswith(f'"requests";r={left};t=')
        refused = limited.http.get("/jobs")
        problem(refused, 429, "too-many")
        assert 1 <= int(refused.headers["retry-after"]) <= 60 and '"requests";r=0' in refused.headers["ratelimit"]
        assert other.http.get("/jobs").is_success


def test_rate_windows_reset_and_their_number_is_limited() -> None:
    now = [0.0]
    rates = Rates(lambda: now[0])
    assert [rates.count("a", 2).exceeded for _ in range(3)] == [False, False, True]
    now[0] = 59.5
    assert rates.count("a", 2).exceeded and rates.count("a", 2, more=0).reset_seconds == 1
    now[0] = 60.0
    assert not rates.count("a", 2).exceeded
    for name in range(MAX_NAMES + 10):
        rates.count(str(name), 1)
    assert len(rates._windows) <= MAX_NAMES + 1


def test_wrong_keys_of_an_address_are_limited_but_known_keys_are_accepted(
    migrated_sqlite: str, configure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from api.access import auth
    from api.http.errors import TooMany, Unauthorised
    from api.keys import service
    from api.keys.schemas import KeySpec

    configure(failures_a_minute=3)
    monkeypatch.setattr(auth, "failures", Rates())
    used, unused = (
        f"Bearer {service.create(auth.OPERATOR, KeySpec(name='x', scopes=list(PLAIN))).key}" for _ in range(2)
    )
    auth.authenticate(used, "10.0.0.1")
    for number in range(3):
        with pytest.raises(Unauthorised, match="data folder"):
            auth.authenticate(f"Bearer dsk_{number:043}", "10.0.0.1")
    for header in ("Bearer dsk_" + "9" * 43, unused):
        with pytest.raises(TooMany, match="wrong keys"):
            auth.authenticate(header, "10.0.0.1")
    assert auth.authenticate(used, "10.0.0.1").scopes == set(PLAIN)
    assert auth.authenticate(unused, "10.0.0.2").scopes == set(PLAIN)
