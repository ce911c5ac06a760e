"""The client and the command line of experiments."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from distillery_client import Client, waiting
from distillery_client.command_line import app
from distillery_client.commands.experiments import fraction_of, words_of
from tests.client.scripted import Request, Response, Scripted

GRID = """
name: losses
base: {teacher: tch_1, student: {network: lenet5_half}}
grid:
  training.seed: [0, 1]
"""


def experiment(*statuses: str) -> dict[str, Any]:
    jobs = [{"id": f"job_{at}", "seed": at, "status": status, "fraction": 0.5} for at, status in enumerate(statuses)]
    counts = {status: statuses.count(status) for status in statuses}
    ended = all(status in ("succeeded", "failed") for status in statuses)
    variants = [{"name": "KD", "jobs": jobs}]
    return {"id": "exp_1", "name": "losses", "status": "ended" if ended else "running", "counts": counts, "variants": variants}  # fmt: skip


def served(states: list[dict[str, Any]]) -> Any:
    left = iter(states)

    def script(request: Request) -> Response:
        if request.method == "POST":
            return Response(202, json.dumps(states[0]).encode())
        if "/table" in request.path:
            return Response(body=b"| variant |\n", headers={"Content-Type": "text/markdown"})
        return Response(body=json.dumps(next(left)).encode(), headers={"ETag": '"1"'})

    return script


@pytest.mark.parametrize(("last", "code"), [("succeeded", 0), ("failed", 1)])
def test_submit_and_watch_prints_the_table(
    server: Scripted, tmp_path: Path, last: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "FIRST_PAUSE_SECONDS", 0.001)
    server.script = served([experiment("queued", "queued"), experiment("running", "succeeded"), experiment("succeeded", last)])  # fmt: skip
    (tmp_path / "grid.yaml").write_text(GRID)
    options = ["--url", server.url, "--key", "dsk_x", "experiments", "submit", str(tmp_path / "grid.yaml"), "--watch"]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == code, done.output
    assert "| variant |" in done.output
    sent = json.loads(server.requests[0].body)
    assert sent["grid"] == {"training.seed": [0, 1]} and server.requests[0].headers["Idempotency-Key"]


def test_a_file_that_is_no_experiment_is_an_error_of_use(server: Scripted, tmp_path: Path) -> None:
    for text in ("[1, 2", "- a list"):
        (tmp_path / "wrong.yaml").write_text(text)
        done = CliRunner().invoke(app, ["--url", server.url, "--key", "k", "experiments", "submit", str(tmp_path / "wrong.yaml")])  # fmt: skip
        assert done.exit_code == 2
    assert server.requests == []


def test_progress_in_words_and_as_a_fraction() -> None:
    assert fraction_of(experiment("queued", "failed")) == 0.75
    assert words_of(experiment("queued", "running", "queued")["counts"]) == "1 running, 2 queued"


def test_the_client_asks_for_a_table(server: Scripted, client: Client) -> None:
    server.respond_with(Response(body=b"{}"))
    client.experiments.table("exp_1", metric="accuracy", best="highest")
    client.experiments.delete("exp_1")
    assert server.requests[0].path == "/v1/experiments/exp_1/table?metric=accuracy&best=highest"
    assert (server.requests[1].method, server.requests[1].path) == ("DELETE", "/v1/experiments/exp_1")
