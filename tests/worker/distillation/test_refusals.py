"""Invalid jobs are refused with a pointer into the spec, before the first step if possible."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.worker.distillation.killed_runs import INPUT, events_of, job_of, run_whole
from worker.distillation import __main__ as command
from worker.distillation.check import check
from worker.distillation.errors import SpecError
from worker.distillation.job import Job
from worker.distillation.process.event_pipe import Channel

ARCHITECTURE = Path(__file__).parents[3] / "docs" / "architecture.md"


@pytest.fixture
def folder(engine_inputs, tmp_path):
    return shutil.copytree(engine_inputs, tmp_path / "job")


def refused(action, job):
    with pytest.raises(SpecError) as caught:
        action(job)
    return {problem.pointer for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("name", "pointer", "training"),
    [
        ("dataset", "/dataset", {}),
        ("dataset", "/dataset", {"validation_fraction": 0.25}),
        ("evaluation", "/evaluation/dataset", {}),
    ],
)
def test_labels_beyond_the_students_classes_are_refused(folder, name, pointer, training):
    tensors = load_file(folder / "inputs" / "dataset.safetensors")
    tensors["train.label"][:8] = 9
    names = {"class_names": json.dumps([str(number) for number in range(10)])}
    save_file(tensors, folder / "inputs" / "ten.safetensors", names)
    job = job_of(folder, training=training)
    assert refused(run_whole, Job({**job.values, name: "inputs/ten.safetensors"}, folder)) == {pointer}


@pytest.mark.parametrize("action", [check, run_whole])
@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        ({"source": {"name": "dafl"}}, "/source/labels"),
        ({"source": {"name": "elsewhere"}}, "/source/name"),
        ({"source": {"name": "dataset", "padding": 0}}, "/source/padding"),
        (
            {"procedure": {"name": "two_stage", "first": [{"name": "cross_entropy"}], "guided": "conv9"}},
            "/procedure/guided",
        ),
    ],
)
def test_a_check_and_a_run_refuse_the_same(folder, action, spec, pointer):
    assert refused(action, job_of(folder, **spec)) == {pointer}


@pytest.mark.parametrize(("whose", "pointer"), [("student", "/student/network"), ("teacher", "/teacher")])
def test_images_that_are_too_small_for_a_network_are_refused(folder, whose, pointer):
    job = job_of(folder)
    part = job.spec["student"] if whose == "student" else job.values["teacher"]
    part["network"] = "torchvision/alexnet"
    assert refused(check, job) == {pointer}


def test_batches_of_one_image_are_refused_for_batch_normalisation(folder):
    student = {"network": "torchvision/mobilenet_v3_small", "options": {}}
    job = job_of(folder, student=student, training={"batch_size": 1})
    assert refused(run_whole, job) == {"/training/batch_size"}


@pytest.mark.parametrize(
    ("text", "pointers"),
    [
        ("{", {""}),
        ("[]", {"/kind"}),
        ('{"kind": "dance"}', {"/kind"}),
        (
            '{"kind": "distill", "spec": {"student": {"network": "mlp"}, "source": {"name": "dataset"}, "training": {}}}',
            {"/spec/task", "/spec/objectives", "/spec/procedure/name"},
        ),
        ('{"kind": "teacher", "upload": "x", "teacher": {"network": "mlp", "classes": 2}}', {"/teacher/input"}),
    ],
)
def test_an_invalid_job_file_is_refused(tmp_path, text, pointers):
    path = tmp_path / "job.json"
    path.write_text(text)
    assert refused(Job.read, path) == pointers
    path.unlink()
    assert refused(Job.read, path) == {""}


def test_the_smallest_job_file_of_the_documentation_runs(folder):
    blocks = re.findall(r"```json\n(.*?)```", ARCHITECTURE.read_text(), re.DOTALL)
    values = next(each for each in map(json.loads, blocks) if "job" not in each)
    values["teacher"] |= {"classes": 4, "input": INPUT}
    for name in ("teacher", "dataset"):
        shutil.copy(folder / "inputs" / f"{name}.safetensors", folder)
    (folder / "job.json").write_text(json.dumps(values))
    assert run_whole(Job.read(folder / "job.json"))[-1]["event"] == "artifact"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried 9 GiB\nmore"), MemoryError()])
def test_too_little_memory_is_reported_with_a_hint(folder, monkeypatch, capsys, error):
    def perform(job, channel, place):
        raise error

    monkeypatch.setattr(command, "perform", perform)
    output = io.StringIO()
    assert command.run_job(job_of(folder), Channel(output)) == command.REFUSED
    (event,) = events_of(output)
    assert (event["fault"], event["code"]) == ("job", "out_of_memory")
    assert "batch_size" in event["hint"]
    assert "\n" not in event["message"]
