"""README.md and student.json: they agree with the report, and with the files next to them."""

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.worker.distillation.killed_runs import job_of, run_whole, student_of
from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.job import Job

EVALUATION = {"evaluation": {"dataset": "dts_1", "split": "train"}}
"""On the training images, so that the report has a note."""


@pytest.fixture(scope="module")
def done(engine_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The output of a run that was evaluated, and its events."""
    folder = shutil.copytree(engine_inputs, tmp_path_factory.mktemp("card") / "job")
    job = job_of(folder, objectives=[{"name": "kd"}], exports=["safetensors"], dataset="dts_1", **EVALUATION)
    events = run_whole(Job({**job.values, "evaluation": "inputs/dataset.safetensors"}, folder))
    return folder / "output", events


def read(output: Path, name: str) -> Any:
    return json.loads((output / name).read_text())


def test_hashes_and_bytes_are_those_of_the_files(done: tuple[Path, list[dict[str, Any]]]):
    output, events = done
    said = {event["name"] for event in events if event["event"] == "artifact"}
    assert said == {path.name for path in output.iterdir()}
    listed = {file["name"]: file for file in read(output, "report.json")["files"]}
    assert listed.keys() == said - {"report.json"}
    in_config = {file["name"]: file for file in read(output, "student.json")["files"]}
    assert in_config.keys() == said - {"report.json", "student.json"}
    for file in [*listed.values(), *in_config.values()]:
        content = (output / file["name"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_student_json_is_enough_to_build_the_student(done: tuple[Path, list[dict[str, Any]]]):
    output, _ = done
    config = read(output, "student.json")
    contract = InputContract(**config["input"])
    network = networks.build(config["network"], config["classes"], contract, config["options"])
    network.load_state_dict(student_of(output.parent), strict=True)
    assert (config["task"], config["output"], len(config["class_names"])) == (
        "classification",
        "logits",
        config["classes"],
    )


def test_the_header_that_hubs_read_has_the_metrics_of_the_report(done: tuple[Path, list[dict[str, Any]]]):
    output, _ = done
    report = read(output, "report.json")
    _, header, text = (output / "README.md").read_text().split("---\n", 2)
    said = yaml.safe_load(header)
    assert (said["library_name"], said["pipeline_tag"]) == ("pytorch", "image-classification")
    assert "license" not in said and report["student"]["network"] in said["tags"]
    (result,) = said["model-index"][0]["results"]
    metrics = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert metrics["accuracy"] == report["evaluation"]["student"]["accuracy"]
    assert all(f"- {note}\n" in text for note in report["notes"]) and report["notes"]


def test_the_lines_of_the_readme_load_the_student(
    done: tuple[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
):
    output, _ = done
    lines = (output / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(output)
    monkeypatch.syspath_prepend(str(output))
    config = read(output, "student.json")
    shape = [config["input"][each] for each in ("channels", "height", "width")]
    names: dict[str, Any] = {"images": torch.zeros(2, *shape, dtype=torch.uint8)}
    exec(lines, names)
    assert importlib.util.find_spec("student").origin == str(output / "student.py")
    assert names["outputs"].shape == (2, config["classes"])


def test_without_safetensors_there_is_no_student_py_and_a_note_says_why(engine_inputs: Path, tmp_path: Path):
    folder = shutil.copytree(engine_inputs, tmp_path / "job")
    run_whole(job_of(folder, objectives=[{"name": "kd"}], exports=["safetensors_fp16"]))
    report, text = read(folder / "output", "report.json"), (folder / "output" / "README.md").read_text()
    assert "There is no student.py, because `exports` lacks `safetensors`." in report["notes"]
    assert not (folder / "output" / "student.py").exists() and "from student import" not in text
    (file,) = report["student"]["files"]
    assert f"differ by at most {file['max_relative_difference']:.2g} of the largest" in text
