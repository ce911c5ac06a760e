"""The pages: what they show, what their forms do, and that strangers' texts are harmless on all of them."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from models.records import Artifact, Attempt, Dataset, Event, Experiment, Job, Key, MlflowRun, Preview
from tests.api.dashboard.browsers import Browser
from tests.api.service import User

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><b>\u202eevil\u2066\u200f{{7*7}}`<b>`"
LONG = "n" * 9_000
PIXEL = b"\x89PNG\r\n\x1a\n"


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the texts that it shows outside of fields."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        self.texts += [
            value or "" for name, value in attributes if name in ("title", "alt", "aria-label", "placeholder")
        ]

    def handle_data(self, data: str) -> None:
        if not self.found or self.found[-1][0] != "textarea":  # a field's own text turns nothing else around
            self.texts.append(data)


def require_harmless(text: str) -> None:
    """Require that a page has no element, attribute or character that a stranger's name put there."""
    page = Elements(text)
    for tag, attributes in page.found:
        assert tag != "b" and not (tag == "img" and attributes.get("src") == "x"), attributes
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        if tag == "script":
            assert (attributes.get("src") or "").startswith("/static/")
        for name in ("href", "src", "action"):
            assert (attributes.get(name) or "/").startswith(("/", "#")), (tag, attributes)
    turned = [shown for shown in page.texts if re.search("[\u202a-\u202e\u2066-\u2069\u200f]", shown)]
    assert not turned, "a text turns others around"
    assert not [shown for shown in page.texts if len(shown) > 20_000], "a text is too long"
    assert "<style" not in text


def summary(**values: Any) -> dict[str, Any]:
    return {"accuracy": 0.9, "main_metric": {"name": "accuracy", "student": 0.9, "teacher": 0.95}, "agreement": 0.8, "bytes": 500,
            "teacher_bytes": 1000, "latency_milliseconds": 1.5} | values  # fmt: skip


def finished(user: User, found: dict[str, Any] | None = None, **values: Any) -> str:
    """A job that has succeeded, with its report and its summary."""
    job = user.job("succeeded", event_seq=2, **values)
    data = {"summary": found or summary()}
    with user.service.rows() as session:
        session.add(Event(job_id=job, seq=1, attempt=1, type="log", message="the engine has finished", data=data))
        session.add(Event(job_id=job, seq=2, attempt=1, type="status", message="succeeded"))
    report = {
        "summary": data["summary"], "notes": [EVIL], "teacher": {"network": EVIL},
        "evaluation": {"student": {"accuracy": 0.9}, "teacher": {"accuracy": 0.95}},
    }  # fmt: skip
    user.blob(Artifact, job, "report.json", json.dumps(report).encode(), content_type="application/json")
    return job


def test_a_job_without_data_is_listed_and_reported_with_its_estimate(visitor: Browser, owner: User) -> None:
    job = finished(owner, summary(accuracy=None, main_metric=None, agreement=None, estimated_agreement=0.97))
    assert re.search(r"0\.97\s*<[^>]*>\s*estimated agreement", visitor.get("/").text)
    assert re.search(r"estimated agreement</th><td class=.number.>0\.97", visitor.get(f"/jobs/{job}").text)
    assert "estimated to agree with its teacher on 97.0%" in owner.http.get(f"/jobs/{job}/report.html").text


@pytest.fixture
def hostile(owner: User) -> list[str]:
    """Paths of pages about records whose every text is hostile."""
    resolved = {
        "teacher": EVIL,
        "student": {"network": EVIL},
        "reasons": {EVIL: EVIL},
        "training": {"seed": 1},
        EVIL: LONG,
    }
    texts: dict[str, Any] = {
        "name": EVIL[:255],
        "labels": {EVIL[:60]: EVIL},
        "spec": {EVIL: EVIL},
        "resolved": resolved,
    }
    error = {"code": EVIL, "message": EVIL + LONG, "hint": EVIL, "errors": [{"pointer": EVIL, "message": EVIL}]}
    experiment = owner._add(Experiment, "exp", name=EVIL[:255], labels={EVIL[:60]: EVIL}, spec={EVIL: EVIL})
    failed = owner.job("failed", error=error, reason=EVIL, **texts)
    running = owner.job("running", progress={"fraction": 0.5, "step": 1, "steps": 2}, phases={EVIL: {}}, stage=EVIL, experiment_id=experiment, variant=EVIL[:255], **texts)  # fmt: skip
    done = finished(owner, summary(main_metric={"name": EVIL, "student": 0.5, "teacher": 0.7}), experiment_id=experiment, variant=EVIL[:255], **texts)  # fmt: skip
    owner.metrics(running, EVIL[:128], [1.0, 0.5])
    owner.metrics(done, EVIL[:128], [1.0, 0.5])
    owner.events(running, 2, data={"name": EVIL})
    owner.blob(Preview, running, f"{EVIL[:100]}-00000001.png", PIXEL, step=1, content_type="image/png")
    owner.blob(Artifact, done, EVIL[:200], b"<script>alert(1)</script>", content_type="text/html")
    with owner.service.rows() as session:
        session.add(Attempt(job_id=running, number=1, worker_id=EVIL[:60], log_key=f"jobs/{running}/1/engine.log"))
    owner.service.storage.put(f"jobs/{running}/1/engine.log", f"{EVIL}\n{LONG}\x00\xff\n".encode())
    names = [EVIL[:200], "\u202e" * 50, LONG[:255]]
    findings = {
        EVIL: EVIL,
        "warnings": [EVIL, LONG],
        "classes": 3,
        "class_names": names,
        "nested": {EVIL: [{EVIL: EVIL}]},
        "per_class": {EVIL: [1, 2, 3]},
        "samples": {"rows": [0, 1, 2], "columns": 8},
    }
    teacher = owner.teacher(name=EVIL[:255], labels={EVIL[:60]: EVIL}, class_names=names, network=EVIL[:255])
    with owner.service.rows() as session:
        session.get_one(Job, done).teacher_id = teacher
    dataset = owner.dataset(found=findings)
    with owner.service.rows() as session:
        session.get_one(Dataset, dataset).name = LONG[:255]
    problem = {"code": EVIL, "message": EVIL + LONG, "hint": EVIL, "errors": [{"pointer": EVIL, "message": EVIL}]}
    rejected = owner.dataset("rejected", problem=problem, labels={EVIL[:60]: EVIL})
    jobs = [f"/jobs/{job}{part}" for job in (failed, running, done) for part in ("", "/status", "/images")]
    uploads = [f"/uploads/{one}" for one in (teacher, dataset, rejected)]
    return [
        "/", "/parts/jobs", f"/?name={EVIL}&label=a:{EVIL}", "/jobs/new", f"/jobs/new?again={failed}", f"/jobs/new?teacher={teacher}",
        f"/jobs/{running}/attempts/1/log-end", "/uploads", *jobs, *uploads, "/experiments", f"/experiments/{experiment}", f"/compare?job={failed}&job={running}&job={done}",
        "/keys", "/operator", f"/jobs/{EVIL}", f"/sign-in?next={EVIL}&token={EVIL}", "/experiments/new",
    ]  # fmt: skip


def test_strangers_texts_are_harmless_on_every_page(visitor: Browser, owner: User, hostile: list[str]) -> None:
    with owner.service.rows() as session:
        session.get_one(Key, owner.key_id).name = EVIL[:255]
    for path in hostile:
        page = visitor.get(path)
        assert page.status_code in (200, 404), f"{path[:60]} {page.status_code}"
        assert page.headers["x-content-type-options"] == "nosniff"
        if page.headers["content-type"] != "application/problem+json":
            require_harmless(page.text)
        assert len(page.text) < 400_000
    specs: list[dict[str, str]] = [
        {"/name": EVIL, "/teacher": EVIL, "/student/network": EVIL, "further": EVIL},
        {"/objectives/0/name": EVIL, "/training/epochs": EVIL, "further": json.dumps({EVIL: EVIL})},
    ]
    grid = {"name": EVIL, "base": {EVIL: EVIL}, "grid": {"a.b": {EVIL: EVIL}}}
    forms = [(path, spec) for path in ("/jobs/new", "/jobs/new/validate") for spec in specs]
    forms += [("/experiments/new", {"spec": text}) for text in (EVIL, json.dumps(grid))]
    forms += [
        (
            "/experiments/new/methods",
            dict.fromkeys(("name", "teacher", "dataset", "network", "width", "epochs", "seeds", "method"), EVIL),
        )
    ]
    for path, form in (*forms, ("/keys", {"name": EVIL, "scope": "jobs:read", "expires_days": EVIL})):
        require_harmless(visitor.post(path, form).text)


def test_the_check_of_harmless_pages_can_fail() -> None:
    for text in (
        "<b>x</b>",
        "<p onclick=x>",
        "<script>x</script>",
        "<a href='javascript:x'>",
        "\u202e",
        "<p style='x'>",
    ):
        with pytest.raises(AssertionError):
            require_harmless(text)


def test_a_file_of_a_job_never_runs_in_the_dashboards_origin(visitor: Browser, owner: User) -> None:
    job = owner.job("succeeded")
    owner.blob(Artifact, job, "page.html", b"<script>alert(1)</script>", content_type="text/html")
    file = visitor.get(f"/jobs/{job}/artifacts/page.html")
    assert file.content == b"<script>alert(1)</script>"
    assert file.headers["content-disposition"].startswith("attachment")
    assert (
        file.headers["content-security-policy"].startswith("sandbox")
        and file.headers["x-content-type-options"] == "nosniff"
    )


def test_the_records_of_another_key_are_not_there(visitor: Browser, other_user: User) -> None:
    job, teacher = other_user.job("succeeded"), other_user.teacher()
    experiment = other_user._add(Experiment, "exp", name="secret", spec={})
    other_user.blob(Artifact, job, "student.onnx", b"secret")
    paths = [f"/jobs/{job}{part}" for part in ("", "/status", "/images", "/curves", "/events", "/artifacts.zip", "/artifacts/student.onnx", "/previews/x", "/attempts/1/log", "/attempts/1/log-end")]  # fmt: skip
    for path in (*paths, f"/uploads/{teacher}", f"/experiments/{experiment}", f"/experiments/{experiment}/table.csv", f"/compare?job={job}", f"/jobs/new?again={job}"):  # fmt: skip
        assert visitor.get(path).status_code == 404, path
    for path in (f"/jobs/{job}/cancel", f"/jobs/{job}/retry", f"/jobs/{job}/delete", f"/uploads/{teacher}/delete", f"/experiments/{experiment}/cancel", f"/experiments/{experiment}/delete"):  # fmt: skip
        assert visitor.post(path).status_code == 404, path
    token = visitor.token
    assert (
        visitor.http.put(f"/uploads/{teacher}/content", content=b"x", headers={"X-Form-Token": token}).status_code
        == 404
    )
    assert "secret" not in visitor.get("/").text + visitor.get("/experiments").text


def test_the_list_shows_and_filters_jobs(visitor: Browser, owner: User) -> None:
    teacher = owner.teacher(name="big one")
    done = finished(owner, name="finished job", teacher_id=teacher, labels={"team": "vision"})
    owner.job("queued", name="waiting job", reason="its spec is being checked")
    page = visitor.get("/").text
    assert "big one" in page and "lenet5_half" in page and "50.0 %" in page and "0.9" in page and "teacher 0.95" in page
    assert "waiting job" in page
    for query, seen in (("name=FINISHED", True), ("name=nothing", False), ("label=team:vision", True), ("label=team:x", False), ("status=queued", False), ("status=succeeded", True), ("name=%25", False)):  # fmt: skip
        assert (done in visitor.get(f"/?{query}").text) == seen, query
    assert visitor.get("/?label=wrong").status_code == 422
    assert visitor.get("/?limit=1").text.count("Older jobs") == 1


def test_a_finished_job_shows_student_beside_teacher(visitor: Browser, owner: User) -> None:
    job = finished(owner)
    page = visitor.get(f"/jobs/{job}").text
    assert "Student beside teacher" in page and "0.95" in page and "500 B" in page
    assert "report.json" in page and "curl" in page and "distillery --url" in page
    assert visitor.get(f"/jobs/{job}/artifacts/report.json").json()["summary"]["bytes"] == 500
    assert visitor.get(f"/jobs/{job}/artifacts.zip").content[:2] == b"PK"


def test_a_job_says_what_it_distils(visitor: Browser, owner: User) -> None:
    teacher, dataset = owner.teacher(name="the big one"), owner.dataset()
    spec = {
        "task": "segmentation", "teacher": teacher, "dataset": dataset, "student": {"like": "teacher", "width": 0.5},
        "objectives": [{"name": "kd", "weight": 0.9}], "transforms": [{"name": "quantise", "bits": 2}],
    }  # fmt: skip
    first = owner.job("succeeded", name="the first", resolved=spec, teacher_id=teacher)
    second = owner.job("queued", resolved=spec | {"teacher": first, "dataset": None})
    page = visitor.get(f"/jobs/{first}").text
    for words in (f'href="/uploads/{teacher}"><bdi>the big one<', f'href="/uploads/{dataset}"', "segmentation", "like the teacher, width 0.5", "0.9 × kd", "quantise"):  # fmt: skip
        assert words in page, words
    assert f'href="/jobs/{first}"><bdi>student of the first<' in visitor.get(f"/jobs/{second}").text
    assert "student of the first" in visitor.get("/").text


def test_curves_are_thinned_and_keep_their_end(visitor: Browser, owner: User) -> None:
    job = owner.job("running")
    owner.metrics(job, "loss", [float(at) for at in range(2500)])
    owner.metrics(job, "accuracy", [0.5, None])
    found = visitor.get(f"/jobs/{job}/curves").json()
    steps, values = found["loss"]
    assert len(steps) == len(values) <= 600 and (steps[0], steps[-1], values[-1]) == (1, 2500, 2499.0)
    assert found["accuracy"] == [[1, 2], [0.5, None]]


def test_buttons_cancel_retry_and_delete(visitor: Browser, owner: User) -> None:
    spec = {"teacher": owner.teacher(), "student": {"network": "lenet5_half"}, "source": {"name": "dafl"}}
    job = owner.http.post("/jobs", json=spec).json()["id"]
    assert visitor.post(f"/jobs/{job}/cancel").headers["location"] == f"/jobs/{job}"
    assert owner.http.get(f"/jobs/{job}").json()["status"] == "cancelled"
    again = visitor.post(f"/jobs/{job}/retry").headers["location"]
    assert owner.http.get(again).json()["retry_of"] == job
    assert visitor.post(f"/jobs/{job}/delete").headers["location"] == "/"
    assert visitor.get(f"/jobs/{job}").status_code == 404
    refused = visitor.post(f"{again}/delete")
    assert refused.status_code == 409 and "Cancel it before" in refused.text


def test_the_form_submits_a_job_and_shows_problems_at_their_fields(visitor: Browser, owner: User) -> None:
    teacher, dataset = owner.teacher(), owner.dataset()
    fields = {"/teacher": teacher, "/dataset": dataset, "/student/network": "lenet5_half", "/name": "by form", "/training/epochs": "3",
              "/objectives/1/name": "kd", "/objectives/1/weight": "0.9", "/objectives/1/temperature": "5",
              "/objectives/3/name": "cross_entropy", "further": '{"labels": {"team": "vision"}}'}  # fmt: skip
    done = visitor.post("/jobs/new", fields)
    assert done.status_code == 303, done.text
    job = owner.http.get(done.headers["location"]).json()
    assert job["spec"] == {
        "name": "by form", "teacher": teacher, "dataset": dataset, "student": {"network": "lenet5_half"}, "training": {"epochs": 3},
        "objectives": [{"name": "kd", "weight": 0.9, "temperature": 5}, {"name": "cross_entropy"}], "labels": {"team": "vision"},
    }  # fmt: skip
    wrong = fields | {"/objectives/3/weight": "-1", "/training/epochs": "many", "/dataset": "dts_0"}
    for path, status in (("/jobs/new/validate", 200), ("/jobs/new", 422)):
        answer = visitor.post(path, wrong)
        assert answer.status_code == status
        assert 'data-pointer="/objectives/3/weight"' in answer.text and 'data-pointer="/training/epochs"' in answer.text
    kept = visitor.post("/jobs/new", wrong).text
    assert 'value="by form"' in kept and 'value="many"' in kept
    again = visitor.get(f"/jobs/new?again={job['id']}").text
    assert 'value="by form"' in again and 'name="/objectives/0/temperature" value="5"' in again


def test_the_check_says_what_the_service_chooses(visitor: Browser, owner: User) -> None:
    found = visitor.post("/jobs/new/validate", {"/teacher": owner.teacher(), "/student/network": "lenet5_half"}).text
    assert "The spec is valid" in found and "<dt>source</dt>" in found


def test_uploads_are_created_sent_and_shown(visitor: Browser, owner: User) -> None:
    fields = {
        "name": "by form",
        "network": "lenet5",
        "input": "1x32x32",
        "mean": "0.13",
        "std": "0.31",
        "classes": "10",
    }
    made = visitor.post("/uploads/teachers", fields, headers={"Accept": "application/json"})
    assert made.status_code == 201, made.text
    paths = made.json()
    sent = visitor.http.put(paths["content"], content=b"weights", headers={"X-Form-Token": visitor.token})
    assert sent.status_code == 202
    teacher = owner.http.get(f"/teachers/{paths['id']}").json()
    assert teacher["status"] == "inspecting" and teacher["size"] == 7 and teacher["input"]["height"] == 32
    assert "inspecting" in visitor.get(paths["page"]).text and "by form" in visitor.get("/uploads").text
    wrong = visitor.post("/uploads/teachers", fields | {"input": "big"}, headers={"Accept": "application/json"})
    assert wrong.status_code == 422 and wrong.json()["errors"][0]["pointer"] == "/input"
    assert visitor.post("/uploads/datasets", {"name": "d"}).status_code == 201
    assert visitor.post("/uploads/files", {"kind": "weights"}).status_code == 201
    unused = owner.dataset()
    assert visitor.post(f"/uploads/{unused}/delete").status_code == 303
    assert visitor.get(f"/uploads/{unused}").status_code == 404


def test_comparison_shows_what_differs_and_what_it_costs(visitor: Browser, owner: User) -> None:
    jobs = []
    for seed, accuracy, size in ((0, 0.5, 100), (1, 0.7, 100), (0, 0.9, 900)):
        resolved = {"student": {"network": "lenet5" if size == 900 else "lenet5_half"}, "training": {"seed": seed}}
        found = summary(bytes=size, main_metric={"name": "accuracy", "student": accuracy}, accuracy=accuracy)
        jobs.append(finished(owner, found, name=f"=job {seed} {size}", resolved=resolved))
    query = "&".join(f"job={job}" for job in jobs)
    page = visitor.get(f"/compare?{query}").text
    assert "/student/network" in page and "/training/seed" in page and "Over seeds" in page
    assert "0.1414" in page and page.count('class="best"') == 3, (
        "two jobs are on the front of bytes, one on that of latency"
    )
    csv = visitor.get(f"/compare/table.csv?{query}").text.splitlines()
    assert csv[0].startswith("id,name,status,accuracy,bytes") and ",'=job 0 100,succeeded,0.5,100.0" in csv[1]


def test_experiments_are_submitted_and_shown(visitor: Browser, owner: User) -> None:
    base = {"teacher": owner.teacher(), "student": {"network": "lenet5_half"}, "source": {"name": "dafl"}}
    body = {
        "name": "by page",
        "base": base,
        "grid": {"training.steps": {"short": 5, "long": 9}, "training.seed": [0, 1]},
    }
    wrong = visitor.post("/experiments/new", {"spec": json.dumps(body | {"grid": {"training.steps": [0]}})})
    assert wrong.status_code == 422 and "/grid/training.steps/0" in wrong.text
    made = visitor.post("/experiments/new", {"spec": json.dumps(body)})
    assert made.status_code == 303, made.text
    page = visitor.get(made.headers["location"])
    assert page.status_code == 200 and "short" in page.text and "4 queued" in page.text
    assert "by page" in visitor.get("/experiments").text
    assert visitor.get(f"{made.headers['location']}/table.csv").text.startswith("metric,variant")
    assert visitor.post(f"{made.headers['location']}/cancel").status_code == 303
    assert "4 cancelled" in visitor.get(made.headers["location"]).text
    assert visitor.post(f"{made.headers['location']}/delete").headers["location"] == "/experiments"


def test_keys_are_made_rotated_and_revoked(visitor: Browser, owner: User) -> None:
    made = visitor.post("/keys", {"name": "for ci", "scope": "jobs:read", "expires_days": "30"}).text
    secret = re.search(r"dsk_[\w-]{43}", made)
    assert secret and secret[0] not in visitor.get("/keys").text
    [key] = [one for one in owner.http.get("/keys").json()["data"] if one["name"] == "for ci"]
    assert key["scopes"] == ["jobs:read"] and key["expires_at"]
    assert re.search(r"dsk_[\w-]{43}", visitor.post(f"/keys/{key['id']}/rotate").text)
    assert visitor.post(f"/keys/{key['id']}/revoke").status_code == 200
    assert owner.http.get(f"/keys/{key['id']}").json()["revoked_at"]
    assert visitor.post("/keys", {"name": "", "scope": "jobs:read"}).status_code == 422
    assert "whsec_" in visitor.post("/keys/webhook-secret").text


def test_the_operators_page_shows_health_storage_and_mlflow(visitor: Browser, owner: User) -> None:
    with owner.service.rows() as session:
        session.add(MlflowRun(job_id=owner.job("running"), failures=2, error=EVIL))
    page = visitor.get("/operator").text
    assert "database" in page and "Storage by key" in page and "queued" in page
    assert "not sent yet" in page
    require_harmless(page)
