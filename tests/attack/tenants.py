"""Two tenants and a model of what each may see: random steps over every route, each answer compared with the model."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from models.records import Artifact, Preview
from tests.api.service import TEACHER, Service
from tests.attack.findings import Findings

KINDS = ("teachers", "datasets", "files")
CREATE: dict[str, dict[str, Any]] = {"teachers": TEACHER, "datasets": {}, "files": {"kind": "weights"}}
UNKNOWN = {"teachers": "tch_", "datasets": "dts_", "files": "fil_", "jobs": "job_", "experiments": "exp_"}
FIELDS = {"teachers": "teacher", "datasets": "dataset", "files": "dataset", "jobs": "teacher", "experiments": "teacher"}
"""Where a job's spec names a record of each kind, rightly or not."""
STUDENT = {"student": {"network": "lenet5_half"}, "training": {"steps": 1}}
TENANTS = st.sampled_from((0, 1))


def operations(service: Service) -> list[tuple[str, str]]:
    """Method and path of every route under `/v1`."""
    document = httpx.get(f"{service.url}/openapi.json", trust_env=False, timeout=60).json()
    found = [(method.upper(), path) for path, routes in document["paths"].items() for method in routes]
    return [(method, path) for method, path in found if path.startswith("/v1/")]


class Coverage:
    """Which routes were called by the owner of what they name, by a stranger, and without any key."""

    def __init__(self, routes: list[tuple[str, str]]):
        self.routes = routes
        self.calls: dict[str, Counter[tuple[str, str]]] = {who: Counter() for who in ("owner", "stranger", "nobody")}

    def note(self, who: str, method: str, path: str) -> None:
        """Count a call of the route that has this path."""
        for route in self.routes:
            pattern = re.sub(r"\{\w+\}", "[^/]+", route[1])
            if route[0] == method and re.fullmatch(pattern, path):
                self.calls[who][route] += 1
                return

    def missing(self) -> list[str]:
        """Routes that nobody has called in one of the roles. Routes without an id have no stranger."""
        of_records = [
            route for route in self.routes if "{identifier}" in route[1] and not route[1].startswith("/v1/keys")
        ]
        wanted = {"owner": self.routes, "stranger": of_records, "nobody": self.routes}
        return [
            f"{who}: {method} {path}" for who, routes in wanted.items() for method, path in routes
            if not self.calls[who][(method, path)]
        ]  # fmt: skip


def machine(service: Service, covered: Coverage) -> type[RuleBasedStateMachine]:
    """The state machine for a running service. Its assertions fail if a tenant sees what the model does not allow."""

    class Tenants(RuleBasedStateMachine):
        """Each tenant marks everything of its own with a word; no answer to the other may contain the word."""

        records: Any = Bundle("records")

        def __init__(self) -> None:
            super().__init__()
            self.users = [service.user(), service.user()]
            self.marks = [f"only-for-{user.key_id[-12:]}" for user in self.users]
            self.owned: list[dict[str, set[str]]] = [{kind: set() for kind in UNKNOWN} for _ in self.users]
            self.deleted: set[str] = set()
            self.secrets: list[str | None] = [None, None]

        def teardown(self) -> None:
            for user in self.users:
                user.http.close()

        def send(
            self, tenant: int | None, method: str, path: str, who: str = "owner", **options: Any
        ) -> httpx.Response:
            """A request of a tenant; checks what holds for every answer."""
            url = f"{service.url}/v1{path}"
            covered.note(who, method, "/v1" + path.partition("?")[0])
            if tenant is None:
                return httpx.request(method, url, trust_env=False, timeout=60, **options)
            answer = self.users[tenant].http.request(method, url, timeout=60, **options)
            assert answer.status_code < 500, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
            other = self.marks[1 - tenant]
            assert other not in answer.text, f"{method} {path} shows {other}: {answer.text[:500]}"
            assert other not in str(answer.headers), f"{method} {path} shows {other} in its headers"
            return answer

        @rule(target=records, tenant=TENANTS, kind=st.sampled_from(KINDS))
        def create(self, tenant: int, kind: str) -> tuple[int, str, str]:
            return self._created(tenant, kind)

        def _created(self, tenant: int, kind: str) -> tuple[int, str, str]:
            body = CREATE[kind] | {"name": self.marks[tenant], "labels": {"owner": self.marks[tenant]}}
            answer = self.send(tenant, "POST", f"/{kind}", json=body)
            assert answer.status_code == 201, answer.text
            identifier = str(answer.json()["id"])
            self.owned[tenant][kind].add(identifier)
            return tenant, kind, identifier

        @rule(target=records, tenant=TENANTS)
        def finish_a_job(self, tenant: int) -> tuple[int, str, str]:
            """A job that has succeeded, with a file, an image, events and metrics."""
            user, mark = self.users[tenant], self.marks[tenant]
            job = user.job("succeeded", name=mark, finished_at=time.time())
            for record in (Artifact, Preview):
                user.blob(record, job, "student.onnx", mark.encode(), **({"step": 1} if record is Preview else {}))
            user.events(job, 2, data={"mark": mark})
            user.metrics(job, mark, [1.0])
            self.owned[tenant]["jobs"].add(job)
            return tenant, "jobs", job

        @rule(target=records, tenant=TENANTS, inputs=records, key=st.sampled_from((None, "a", "b")))
        def submit(self, tenant: int, inputs: tuple[int, str, str], key: str | None) -> tuple[int, str, str] | None:
            """A job with somebody's record as its teacher or dataset. Both tenants use the same idempotency keys."""
            owner, kind, identifier = inputs
            field = FIELDS[kind]
            body = STUDENT | {field: identifier, "name": self.marks[tenant], "labels": {"owner": self.marks[tenant]}}
            headers = {"Idempotency-Key": f"{key}-{self.marks[0]}-{identifier}"} if key else {}
            for path in ("/jobs:validate", "/jobs"):
                answer = self.send(tenant, "POST", path, json=body, headers=headers | {"Prefer": "wait=0"})
                if owner != tenant:
                    unknown = self._unknown(kind)
                    same = self.send(tenant, "POST", path, json=body | {field: unknown})
                    assert answer.status_code == same.status_code == 422, answer.text
                    assert _neutral(answer, identifier) == _neutral(same, unknown)
            if answer.status_code != 202:
                assert answer.status_code in (409, 422), answer.text
                return tenant, "jobs", self._unknown("jobs")
            job = str(answer.json()["id"])
            assert job not in self.owned[1 - tenant]["jobs"], "an idempotency key of another tenant was used"
            self.owned[tenant]["jobs"].add(job)
            return tenant, "jobs", job

        @rule(target=records, tenant=TENANTS, inputs=records)
        def submit_experiment(self, tenant: int, inputs: tuple[int, str, str]) -> tuple[int, str, str]:
            """Two jobs in one request, with a new teacher, or with a record of the other tenant."""
            owner, kind, identifier = inputs if inputs[0] != tenant else self._created(tenant, "teachers")
            base = STUDENT | {FIELDS[kind]: identifier, "name": self.marks[tenant]}
            body = {"name": self.marks[tenant], "labels": {"owner": self.marks[tenant]}, "base": base}
            body |= {"grid": {"training.seed": [0, 1]}}
            answer = self.send(tenant, "POST", "/experiments", json=body)
            if owner != tenant:
                unknown = self._unknown(kind)
                none = body | {"base": base | {FIELDS[kind]: unknown}}
                same = self.send(tenant, "POST", "/experiments", json=none)
                assert answer.status_code == same.status_code == 422, answer.text
                assert _neutral(answer, identifier) == _neutral(same, unknown)
                return tenant, "experiments", self._unknown("experiments")
            assert answer.status_code == 202, answer.text
            experiment = str(answer.json()["id"])
            self.owned[tenant]["experiments"].add(experiment)
            self.owned[tenant]["jobs"] |= self._members(tenant, experiment)
            return tenant, "experiments", experiment

        @rule(record=records, choice=st.integers(0, 1000), streams=st.booleans())
        def a_stranger_tries(self, record: tuple[int, str, str], choice: int, streams: bool) -> None:
            """The answer is a 404, and the same as for an id that never existed."""
            owner, kind, identifier = record
            method, template = self._route_of(kind, choice)
            headers = {"Accept": "text/event-stream"} if streams else {"Prefer": "wait=1"}
            stranger, unknown = 1 - owner, self._unknown(kind)
            theirs, none = (
                self.send(
                    stranger,
                    method,
                    _path(template, one),
                    "stranger",
                    headers=headers,
                    **_body(method, self.marks[stranger]),
                )
                for one in (identifier, unknown)
            )
            assert theirs.status_code == none.status_code == 404, (
                f"{method} {template}: {theirs.status_code} {theirs.text}"
            )
            assert _neutral(theirs, identifier) == _neutral(none, unknown), f"{method} {template} tells that it exists"

        @rule(choice=st.integers(0, 1000), key=st.sampled_from((None, "dsk_wrong", "Bearer", "x" * 5000)))
        def nobody_tries(self, choice: int, key: str | None) -> None:
            method, template = _least(covered.routes, covered.calls["nobody"], choice)
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            answer = self.send(None, method, _path(template, "x"), "nobody", headers=headers)
            assert answer.status_code == 401, f"{method} {template}: {answer.status_code}"

        @rule(record=records, choice=st.integers(0, 1000))
        def the_owner_uses_it(self, record: tuple[int, str, str], choice: int) -> None:
            """The owner's own records answer; after a deletion they are gone."""
            owner, kind, identifier = record
            method, template = self._route_of(kind, choice)
            gone = {identifier}
            if method == "DELETE" and kind == "experiments":
                gone |= self._members(owner, identifier)
            answer = self.send(owner, method, _path(template, identifier), **_body(method, self.marks[owner]))
            known = identifier in self.owned[owner][kind] and identifier not in self.deleted
            whole = template.endswith("{identifier}")
            if not known:
                assert answer.status_code in (404, 410, 422), f"{method} {template}: {answer.status_code}"
            elif whole and method in ("GET", "PATCH"):
                assert answer.status_code in (200, 422), answer.text
            if method == "DELETE" and answer.status_code == 204:
                self.deleted |= gone
            if template.endswith("/retry") and answer.status_code == 202:
                self.owned[owner]["jobs"].add(str(answer.json()["id"]))

        @rule(record=records, tenant=TENANTS, limit=st.integers(1, 5), newest=st.booleans())
        def list_all(self, record: tuple[int, str, str], tenant: int, limit: int, newest: bool) -> None:
            """Lists show a tenant's own records, all of them, whatever cursor and filter it sends."""
            _, kind, identifier = record
            shown: set[str] = set()
            query: dict[str, Any] = {"limit": limit}
            while True:
                page = self.send(tenant, "GET", f"/{kind}", params=query)
                assert page.status_code == 200, page.text
                shown |= {one["id"] for one in page.json()["data"]}
                if not page.json()["next_cursor"]:
                    break
                query["cursor"] = page.json()["next_cursor"]
            assert shown == self.owned[tenant][kind] - self.deleted, f"{kind} of tenant {tenant}"
            filters = {"label": f"owner:{self.marks[1 - tenant]}"} if newest else {"cursor": _cursor_of(identifier)}
            answer = self.send(tenant, "GET", f"/{kind}", params=filters)
            found = {one["id"] for one in answer.json().get("data", [])} if answer.status_code == 200 else set()
            assert found <= self.owned[tenant][kind] and not (newest and found)

        @rule(tenant=TENANTS)
        def webhook_secret(self, tenant: int) -> None:
            made = self.send(tenant, "POST", "/webhooks/secret")
            assert made.status_code == 201, made.text
            self.secrets[tenant] = str(made.json()["secret"])
            other = self.secrets[1 - tenant]
            for answer in (made, self.send(tenant, "GET", "/webhooks/secret")):
                assert other is None or other not in answer.text

        @rule(tenant=TENANTS, route=st.sampled_from([one for one in covered.routes if one[1].startswith("/v1/keys")]))
        def keys_without_admin(self, tenant: int, route: tuple[str, str]) -> None:
            """A key without `admin` sees itself and no other key, and changes none."""
            method, template = route
            other = self.users[1 - tenant].key_id
            answer = self.send(tenant, method, _path(template, other), **_body(method, "x"))
            if template == "/v1/keys/me":
                assert answer.json()["id"] == self.users[tenant].key_id
            else:
                assert answer.status_code == 403, f"{method} {template}: {answer.status_code}"
            assert other not in answer.text

        @rule(tenant=TENANTS)
        def catalogue(self, tenant: int) -> None:
            assert self.send(tenant, "GET", "/catalogue").status_code == 200

        @invariant()
        def nothing_is_shared(self) -> None:
            assert not any(self.owned[0][kind] & self.owned[1][kind] for kind in UNKNOWN)

        def _route_of(self, kind: str, choice: int) -> tuple[str, str]:
            """One of the routes of a record of this kind; those that were called the least come first."""
            routes = [route for route in covered.routes if f"/{kind}/{{identifier}}" in route[1]]
            return _least(routes, covered.calls["owner"] + covered.calls["stranger"], choice)

        def _members(self, tenant: int, experiment: str) -> set[str]:
            """The jobs of an experiment; none if there is no such experiment."""
            answer = self.send(tenant, "GET", f"/experiments/{experiment}/jobs", params={"limit": 100})
            return {one["id"] for one in answer.json().get("data", [])}

        def _unknown(self, kind: str) -> str:
            return UNKNOWN[kind] + "0" * 32

    return Tenants


def _least(routes: list[tuple[str, str]], calls: Counter[tuple[str, str]], choice: int) -> tuple[str, str]:
    """One of the three routes that were called the least."""
    return sorted(routes, key=lambda route: calls[route])[choice % min(3, len(routes))]


def _path(template: str, identifier: str) -> str:
    path = template.removeprefix("/v1").replace("{identifier}", identifier).replace("{name}", "student.onnx")
    return path.replace("{number}", "1").replace("{delivery}", "whd_" + "0" * 32)


def _body(method: str, mark: str) -> dict[str, Any]:
    return {"PATCH": {"json": {"name": mark}}, "PUT": {"content": mark.encode()}}.get(method, {})


def _neutral(answer: httpx.Response, identifier: str) -> str:
    """The text of an answer without what differs for every request."""
    text = answer.text.replace(identifier, "ID")
    request_id = answer.headers.get("x-request-id", "")
    return text.replace(request_id, "REQUEST") if request_id else text


def _cursor_of(identifier: str) -> str:
    import base64

    return base64.urlsafe_b64encode(identifier.encode()).decode().rstrip("=")


def explore(service: Service, findings: Findings, number: int, seconds: float, steps: int = 40) -> None:
    """Run the machine with one seed after the other until the time is used up; notes the first failure of each."""
    covered = Coverage(operations(service))
    deadline, examples = time.monotonic() + seconds, 0
    for part in _seeds(number):
        made = seed(part)(machine(service, covered))
        options = settings(
            max_examples=5, stateful_step_count=steps, deadline=None, database=None, print_blob=False,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        try:
            run_state_machine_as_test(made, settings=options)
        except (AssertionError, httpx.HTTPError) as error:
            findings.violation("tenants see their own", f"seed {part}: {error}")
        examples += 5
        if time.monotonic() > deadline:
            break
    calls = {who: sum(counted.values()) for who, counted in covered.calls.items()}
    findings.note(
        "tenants", runs=examples, calls=calls, routes=len(covered.routes), routes_not_called=covered.missing()
    )


def _seeds(number: int) -> Iterator[int]:
    yield from range(number * 1000, number * 1000 + 1000)
