"""What jobs show in terminals, notebooks and TensorBoard."""

import json
import struct
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from distillery_client import Client, event_files, scalar_events
from distillery_client.curves import chosen, drawing
from distillery_client.progress import follow
from tests.client.scripted import Request, Response, Scripted

AT = "2026-11-21T09:00:00Z"


def rows(*values: tuple[str, int, float | None]) -> bytes:
    found = [
        {"name": name, "step": step, "value": value, "attempt": 1, "created_at": AT} for name, step, value in values
    ]
    return json.dumps({"data": found, "next_cursor": None}).encode()


METRICS = rows(("loss", 1, 2.0), ("loss", 2, 1.0), ("loss", 4, None), ("kd/kd", 2, 0.5))


def serve(server: Scripted, job: dict[str, Any]) -> None:
    def script(request: Request) -> Response:
        if "/metrics" in request.path:
            return Response(body=METRICS)
        if "/events" in request.path:
            return Response(204)
        if request.path.endswith("/report.html"):
            return Response(body=b"<html>", headers={"Content-Type": "text/html"})
        return Response(body=json.dumps(job).encode(), headers={"ETag": '"1"'})

    server.script = script


def test_a_job_shows_itself_in_a_notebook(server: Scripted, client: Client) -> None:
    serve(server, {"id": "job_1", "name": "<b>evil</b>", "status": "running", "progress": {"fraction": 0.25}})
    job = client.jobs.get("job_1")
    assert job["id"] == "job_1" and json.loads(json.dumps(job)) == dict(job)
    shown = job._repr_html_()
    assert "&lt;b&gt;evil" in shown and "<b>" not in shown
    assert "running 25 %" in shown and "loss: 1 at step 2" in shown and shown.count("<svg") == 1


def test_metrics_are_a_data_frame_or_else_a_dictionary(
    server: Scripted, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(server, {"id": "job_1"})
    monkeypatch.setitem(sys.modules, "pandas", None)  # as if it were not installed
    assert client.jobs.get("job_1").metrics() == {"loss": [(1, 2.0), (2, 1.0), (4, None)], "kd/kd": [(2, 0.5)]}


def test_with_pandas_metrics_are_a_data_frame(server: Scripted, client: Client) -> None:
    pandas = pytest.importorskip("pandas")
    serve(server, {"id": "job_1"})
    frame = client.jobs.get("job_1").metrics()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.loc[2, "loss"] == 1.0 and pandas.isna(frame.loc[1, "kd/kd"]) and list(frame.index) == [1, 2, 4]


def test_curves_of_the_most_telling_metrics_are_drawn() -> None:
    curves: dict[str, Any] = {"loss": [(1, 2.0), (2, 1.0)], "kd/kd": [(1, 1.0), (2, 2.0)], "learning_rate": [(1, 1.0)]}
    assert chosen(list(curves)) == ["loss", "kd/kd"] and chosen(list(curves), ["kd/kd"]) == ["kd/kd"]
    text = drawing(curves, 60, colour=False)
    assert "loss 1" in text and "kd/kd 2" in text and max(map(len, text.splitlines())) <= 60
    assert "\x1b" not in drawing({"\x1b[2Jx": [(1, 1.0), (2, 2.0)]}, 60, colour=False)
    assert drawing({"loss": [(1, 1.0), (2, float("inf"))]}, 60) == ""


def test_following_a_job_draws_its_curves(server: Scripted, client: Client) -> None:
    serve(server, {"id": "job_1", "status": "succeeded", "metrics": {}})
    written = StringIO()
    console = Console(file=written, force_terminal=True, width=80)
    assert follow(client, "job_1", console, curves=True)["status"] == "succeeded"
    assert "loss 1" in written.getvalue()


def read_records(path: Path) -> list[bytes]:
    """The messages of a file of TFRecords; checks lengths and sums."""
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        message = data[12 : 12 + length]
        assert data[: 16 + length] == scalar_events.record(message)
        found.append(message)
        data = data[16 + length :]
    return found


def test_the_sums_are_those_of_the_standard() -> None:
    assert scalar_events.crc32c(b"123456789") == 0xE3069283  # RFC 3720, appendix B.4, and the catalogue of CRCs
    assert scalar_events.crc32c(bytes(32)) == 0x8A9136AA


def test_metrics_become_event_files(server: Scripted, client: Client, tmp_path: Path) -> None:
    serve(server, {"id": "job_1", "status": "succeeded"})
    folder = event_files.follow(client, "job_1", tmp_path)
    [file] = folder.iterdir()
    first, *events = read_records(file)
    assert b"brain.Event:2" in first
    assert [(b"loss" in event, b"kd/kd" in event) for event in events] == [(True, False), (True, False), (False, True)]
    assert struct.pack("<f", 0.5) in events[2] and file.name.startswith("events.out.tfevents.")


def test_tensorboard_reads_the_event_files(server: Scripted, client: Client, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    serve(server, {"id": "job_1", "status": "succeeded"})
    found = accumulator.EventAccumulator(str(event_files.follow(client, "job_1", tmp_path)))
    found.Reload()
    assert [(one.step, one.value) for one in found.Scalars("loss")] == [(1, 2.0), (2, 1.0)]


def test_a_report_is_downloaded(server: Scripted, client: Client, tmp_path: Path) -> None:
    serve(server, {})
    assert client.jobs.report("job_1", tmp_path).read_bytes() == b"<html>"
