import json
from pathlib import Path
from typing import Any

import pytest
from typer import BadParameter
from typer.testing import CliRunner

from distillery_client.command_line import app
from distillery_client.commands.jobs import parse_objective
from distillery_client.commands.uploads import input_contract
from distillery_client.output import print_result
from tests.client.scripted import Request, Response, Scripted

PROBLEM = {
    "title": "Invalid request",
    "status": 422,
    "detail": "One value is not valid.",
    "errors": [{"pointer": "/objectives/0/temperature", "message": "must be greater than 0"}],
}


def call(server: Scripted, *arguments: str, text: str | None = None) -> Any:
    options = ["--url", server.url, "--key", "dsk_test"]
    return CliRunner().invoke(app, [*options, *arguments], input=text, env={"COLUMNS": "200"})


def job(status: str, **more: Any) -> dict[str, Any]:
    return {"id": "job_1", "name": "j", "status": status, "phase": None, "metrics": {}, "error": None, **more}


def ending(status: str, **more: Any) -> Any:
    """A script for a job that is submitted and ends with a status."""
    event = {"seq": 1, "type": "status", "level": "info", "message": status, "data": {"status": status}}

    def script(request: Request) -> Response:
        if request.path.endswith("/events"):
            return Response(
                body=f"data: {json.dumps(event)}\n\n".encode(), headers={"Content-Type": "text/event-stream"}
            )
        return Response(202 if request.method == "POST" else 200, json.dumps(job(status, **more)).encode())

    return script


def test_the_exit_code_of_a_succeeded_job_is_0(server: Scripted) -> None:
    server.script = ending("succeeded")
    result = call(server, "--json", "jobs", "submit", "--teacher", "tch_1", "--student", "lenet5_half", "--watch")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["status"] == "succeeded"
    assert json.loads(server.requests[0].body) == {"teacher": "tch_1", "student": {"network": "lenet5_half"}}


def test_a_width_asks_for_a_student_like_its_teacher(server: Scripted) -> None:
    server.script = ending("queued")
    assert call(server, "jobs", "submit", "--teacher", "tch_1", "--width", "0.25").exit_code == 0
    assert json.loads(server.requests[0].body)["student"] == {"like": "teacher", "width": 0.25}


def test_the_evaluation_dataset_and_the_weights_to_read_are_options(server: Scripted, tmp_path: Path) -> None:
    server.script = ending("queued")
    call(server, "jobs", "submit", "--teacher", "tch_1", "--student", "lenet5", "--evaluation", "dts_1")
    assert json.loads(server.requests[0].body)["evaluation"] == {"dataset": "dts_1"}
    (tmp_path / "net.pth").write_bytes(b"x")
    call(server, "teachers", "upload", str(tmp_path / "net.pth"), "--dataset", "dts_1", "--weights", "raw")
    assert json.loads(server.requests[1].body)["weights"] == "raw"


def test_what_was_recognised_and_warnings_are_lines_of_their_own(server: Scripted) -> None:
    recognised = {"accuracy": 0.985, "images": 2048, "split": "test"}
    findings = {"network": "lenet", "recognised": recognised, "warnings": ["10 tensors [have] other names"]}
    server.script = lambda request: Response(body=json.dumps({"id": "tch_1", "findings": findings}).encode())
    lines = call(server, "teachers", "show", "tch_1").stdout.splitlines()
    assert "Recognised as `lenet`, right on 98.5% of 2048 images of the split test." in lines
    assert lines[-1] == "Warning: 10 tensors [have] other names"


def test_the_result_of_a_job_is_its_main_metric_with_the_notes(capsys: pytest.CaptureFixture[str]) -> None:
    metric = {"name": "accuracy", "student": 0.97104, "teacher": 0.99}
    print_result(
        {"summary": {"main_metric": metric, "parameters": 11418, "teacher_parameters": 44426}, "notes": ["short"]}
    )
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "accuracy: student 0.971, teacher 0.99",
        "parameters 11,418, teacher parameters 44,426",
        "Note: short",
    ]


def test_a_new_job_is_shown_with_what_was_chosen_for_it(server: Scripted) -> None:
    server.script = ending("queued", resolved={"training": {"steps": 9}, "reasons": {"/source": "dafl, because [x]"}})
    printed = call(server, "jobs", "submit", "--teacher", "tch_1", "--student", "lenet5").stdout.splitlines()
    assert printed[-2:] == ["/source: dafl, because [x]", "Follow it: distillery jobs watch job_1"]
    assert "training" not in "".join(printed)


def test_a_followed_job_ends_with_a_few_lines_and_not_with_its_whole_record(server: Scripted) -> None:
    server.script = ending("succeeded", spec={"teacher": "tch_1"}, resolved={"training": {"steps": 9}})
    printed = call(server, "jobs", "watch", "job_1").stdout
    assert "succeeded" in printed
    assert "resolved" not in printed and "tch_1" not in printed


def test_without_data_the_result_is_the_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    print_result({"summary": {"main_metric": None, "estimated_agreement": 0.98765}})
    assert capsys.readouterr().out.splitlines() == ["estimated agreement with the teacher: 0.9877"]


def test_the_exit_code_of_a_failed_job_is_1_and_its_error_is_printed(server: Scripted) -> None:
    server.script = ending("failed", error={"code": "diverged", "message": "the loss is NaN", "hint": "Lower it."})
    result = call(server, "jobs", "watch", "job_1")
    assert result.exit_code == 1
    assert "the loss is NaN" in result.stderr and "Hint: Lower it." in result.stderr


def test_the_exit_code_of_an_invalid_spec_is_2_and_its_problems_are_printed(server: Scripted) -> None:
    server.respond_with(Response(422, json.dumps(PROBLEM).encode()))
    result = call(server, "jobs", "submit", "--spec", "-", text='{"teacher": "tch_1"}')
    assert result.exit_code == 2
    assert "/objectives/0/temperature: must be greater than 0" in result.stderr


def test_the_exit_code_of_a_rejected_upload_is_1_and_its_problem_is_printed(server: Scripted, tmp_path: Path) -> None:
    (tmp_path / "digits.npz").write_bytes(b"bytes")
    record = {"id": "dts_1", "status": "waiting", "upload": "http://elsewhere/v1/datasets/dts_1/content"}
    rejected = record | {"status": "rejected", "problem": {"detail": "the file is cut short", "hint": "Send it again."}}

    def script(request: Request) -> Response:
        if request.method == "GET":
            return Response(body=json.dumps(rejected).encode())
        return Response(201, json.dumps(record).encode())

    server.script = script
    result = call(server, "datasets", "upload", str(tmp_path / "digits.npz"))
    assert result.exit_code == 1 and "the file is cut short" in result.stderr and "Send it again." in result.stderr
    put = server.requests[1]
    assert (put.method, put.path, put.body) == ("PUT", "/v1/datasets/dts_1/content", b"bytes")
    assert put.headers["Content-Length"] == "5" and "Transfer-Encoding" not in put.headers


def test_options_override_a_spec_from_a_file(server: Scripted, tmp_path: Path) -> None:
    server.script = ending("queued")
    spec = tmp_path / "job.json"
    spec.write_text('{"teacher": "tch_1", "student": {"network": "mlp"}, "training": {"batch_size": 32}}')
    call(server, "jobs", "submit", "--spec", str(spec), "--steps", "9", "--objective", "kd=0.9", "--objective", "nst")
    assert json.loads(server.requests[0].body) == {
        "teacher": "tch_1",
        "student": {"network": "mlp"},
        "objectives": [{"name": "kd", "weight": 0.9}, {"name": "nst"}],
        "training": {"batch_size": 32, "steps": 9},
    }


def test_chain_submits_the_spec_of_a_job_with_its_student_as_the_teacher(server: Scripted) -> None:
    sent = {"name": "first", "teacher": "tch_1", "student": {"network": "lenet5", "options": {}}, "dataset": "dts_1"}

    def script(request: Request) -> Response:
        record = {"id": "job_1", "spec": sent} if request.method == "GET" else {"id": "job_2", "status": "queued"}
        return Response(body=json.dumps(record).encode())

    server.script = script
    result = call(server, "--json", "jobs", "chain", "job_1", "--student", "lenet5_half")
    assert result.exit_code == 0 and json.loads(result.stdout)["id"] == "job_2"
    read, submitted = server.requests
    assert (read.method, read.path, submitted.method, submitted.path) == ("GET", "/v1/jobs/job_1", "POST", "/v1/jobs")
    assert json.loads(submitted.body) == {
        "teacher": "job_1", "student": {"network": "lenet5_half"}, "dataset": "dts_1",
    }  # fmt: skip


def test_the_exit_code_of_malformed_arguments_is_2(server: Scripted) -> None:
    assert call(server, "jobs", "submit", "--nonsense").exit_code == 2
    assert call(server, "jobs", "submit", "--objective", "kd=much").exit_code == 2
    assert call(server, "jobs", "submit", "--student", "lenet5", "--width", "0.5").exit_code == 2
    assert call(server, "jobs", "submit", "--spec", "-", text="no json").exit_code == 2
    assert server.requests == []


def test_lists_are_printed_as_tables_or_json(server: Scripted) -> None:
    record = {"id": "tch_1", "name": "t", "status": "ready", "size": 1536, "created_at": "2026-11-21T09:00:00Z"}
    server.respond_with(Response(body=json.dumps({"data": [record], "next_cursor": None}).encode()))
    table = call(server, "teachers", "list")
    assert table.exit_code == 0 and "tch_1" in table.stdout and "1.5 KiB" in table.stdout
    assert json.loads(call(server, "--json", "teachers", "list").stdout) == [record]


def test_the_exit_code_without_a_service_is_2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        app, ["jobs", "list"], env=dict.fromkeys(("DISTILL_URL", "DISTILL_KEY", "DISTILL_DATA"))
    )
    assert result.exit_code == 2 and "make up" in result.stderr


def test_input_contracts_and_objectives_are_parsed() -> None:
    wanted = {"channels": 3, "height": 32, "width": 16, "mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]}
    assert input_contract("3x32x16", "0.1,0.2,0.3", "1,1,1") == wanted
    for wrong in (("32x32", "0", "1"), ("1x32x32", "a", "1")):
        with pytest.raises(BadParameter):
            input_contract(*wrong)
    assert parse_objective("kd=0.9") == {"name": "kd", "weight": 0.9}
    assert parse_objective("nst") == {"name": "nst"}


def test_a_file_that_cannot_be_unpacked_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "student.huffman"
    path.write_bytes(b"something else")
    result = CliRunner().invoke(app, ["unpack", str(path)], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "this is no file of the export `huffman`" in result.output
    assert not path.with_suffix(".safetensors").exists()
