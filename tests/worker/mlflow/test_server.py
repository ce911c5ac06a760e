"""Jobs as runs of a real MLflow server. Its program is on the path, or named by `TEST_MLFLOW`; without it, the tests are skipped."""

import json
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from models.database import transaction
from models.records import Job, MlflowRun
from tests.servers import _free_ports
from tests.worker.attempt.test_job import eventually
from tests.worker.scenes import artifact, change, claimed, get, make_job, rows, run_next
from worker.ledger.attempts import AttemptLedger
from worker.mlflow.mirror import Mirror, visit_next

PROGRAM = os.environ.get("TEST_MLFLOW") or shutil.which("mlflow")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        PROGRAM is None, reason="needs MLflow: install it elsewhere, and set TEST_MLFLOW to its program"
    ),
]


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a database of its own."""
    folder, [port] = tmp_path_factory.mktemp("mlflow"), _free_ports(1)
    command = [
        str(PROGRAM), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    url, environment = (
        f"http://127.0.0.1:{port}",
        {
            "PATH": f"{Path(str(PROGRAM)).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        eventually(lambda: _answers(f"{url}/health"), 400.0)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it starts others, and waits for them at SIGTERM
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ask(url: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/api/2.0/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def runs_of(url: str, job_id: str) -> list[Any]:
    (experiment,) = ask(url, "mlflow/experiments/search", {"max_results": 10, "filter": "name = 'distillery'"})[
        "experiments"
    ]
    asked = {"experiment_ids": [experiment["experiment_id"]], "filter": f"tags.\"distillery.job\" = '{job_id}'"}
    return list(ask(url, "mlflow/runs/search", asked).get("runs", []))


def test_a_job_appears_with_parameters_metrics_and_artifacts(
    both: None, configure: Callable[..., Any], mlflow: str
) -> None:
    configure(mlflow_tracking_uri=mlflow)
    job_id = make_job(steps=30)
    change(
        Job,
        job_id,
        name="half <b>size</b> ünd",
        variant="KD",
        labels={"team": "vision", "script": json.dumps({"steps": 30})},
    )
    run_next()
    with Mirror():
        eventually(lambda: rows(MlflowRun, job_id=job_id)[0].status == "sent", 60.0)
    (run,) = runs_of(mlflow, job_id)
    info, data = run["info"], run["data"]
    assert info["status"] == "FINISHED" and info["run_name"] == "half <b>size</b> ünd"
    assert {one["key"]: one["value"] for one in data["params"]}["student.network"] == "lenet5_half"
    tags = {one["key"]: one["value"] for one in data["tags"]}
    assert (tags["label.team"], tags["distillery.variant"], tags["distillery.status"]) == ("vision", "KD", "succeeded")
    history = ask(mlflow, f"mlflow/metrics/get-history?run_id={info['run_id']}&metric_key=loss")["metrics"]
    assert [(one["step"], one["value"]) for one in history] == [(step, 1 / step) for step in range(1, 31)]
    place = info["artifact_uri"].removeprefix("mlflow-artifacts:/").strip("/")
    with urllib.request.urlopen(f"{mlflow}/api/2.0/mlflow-artifacts/artifacts/{place}/student.safetensors") as answer:
        assert answer.read() == artifact(job_id)
    job = get(Job, job_id)
    assert int(info["end_time"]) == round(job.finished_at * 1000) and int(info["start_time"]) == round(
        job.started_at * 1000
    )


def test_a_running_job_grows_and_a_lost_answer_makes_no_second_run(
    embedded: None, configure: Callable[..., Any], mlflow: str
) -> None:
    configure(mlflow_tracking_uri=mlflow)
    job_id = make_job(steps=3)
    held = claimed()
    assert visit_next()
    with transaction() as session:  # as if the worker had been killed before it could write down the id
        session.execute(update(MlflowRun).values(run_id=None, described=False, due_at=0.0))
    assert visit_next()
    (run,) = runs_of(mlflow, job_id)
    assert run["info"]["status"] == "RUNNING"
    AttemptLedger(job_id, held.attempt).fail(
        {"code": "broken", "message": "it broke", "hint": "", "fault": "job"}, None
    )
    with transaction() as session:
        session.execute(update(MlflowRun).values(due_at=0.0))
    assert visit_next()
    (run,) = runs_of(mlflow, job_id)
    tags = {one["key"]: one["value"] for one in run["data"]["tags"]}
    assert run["info"]["status"] == "FAILED" and tags["distillery.error"] == "broken: it broke"
    assert rows(MlflowRun, job_id=job_id)[0].status == "sent"
