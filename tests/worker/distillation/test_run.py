"""A run as the worker sees it: events, final states, files."""

import io
import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.worker.distillation.killed_runs import (
    INPUT,
    events_of,
    job_of,
    run_killed,
    run_whole,
    same_bits,
    student_of,
)
from worker.distillation.check import check
from worker.distillation.errors import Diverged, SpecError
from worker.distillation.job import Job
from worker.distillation.process.event_pipe import Channel
from worker.distillation.run import Run
from worker.distillation.trainer.worker_requests import Stopped

KD = [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9, "temperature": 4.0}]


@pytest.fixture
def folder(engine_inputs, tmp_path):
    return shutil.copytree(engine_inputs, tmp_path / "job")


def start(job):
    output = io.StringIO()
    return Run(job, Channel(output)), output


def of_kind(events, kind):
    return [event for event in events if event["event"] == kind]


def test_a_run_sends_events_and_writes_a_student_with_a_report(folder):
    events = run_whole(job_of(folder, objectives=KD))
    assert events[0]["event"] == "started"
    assert [event["phase"] for event in of_kind(events, "phase")] == [
        "checking_teacher",
        "distilling",
        "evaluating",
        "exporting",
    ]
    progress = of_kind(events, "progress")[-1]
    assert (progress["step"], progress["steps"], progress["fraction"]) == (5, 5, 1.0)
    metrics = of_kind(events, "metrics")[-1]["values"]
    assert {"loss", "learning_rate"} <= set(metrics)
    artifacts = {event["name"]: event for event in of_kind(events, "artifact")}
    assert {"student.safetensors", "report.json"} <= set(artifacts)
    for artifact in artifacts.values():
        assert (folder / artifact["path"]).stat().st_size == artifact["size"]
    assert json.loads((folder / artifacts["report.json"]["path"]).read_text())["summary"]


def test_equal_seeds_give_equal_students_and_different_seeds_do_not(engine_inputs, tmp_path):
    students = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        shutil.copytree(engine_inputs, tmp_path / name)
        torch.manual_seed(len(students))
        run_whole(job_of(tmp_path / name, objectives=KD, training={"seed": seed}))
        students.append(student_of(tmp_path / name))
    assert same_bits(students[0], students[1])
    assert not same_bits(students[0], students[2])


def test_metrics_are_the_same_after_a_resume(engine_inputs, tmp_path):
    spec = {"objectives": KD, "training": {"steps": 12}}
    for name in ("whole", "killed"):
        shutil.copytree(engine_inputs, tmp_path / name)
    whole = of_kind(run_whole(job_of(tmp_path / "whole", **spec)), "metrics")
    resumed = of_kind(run_killed(job_of(tmp_path / "killed", **spec), 7, tmp_path / "restored"), "metrics")
    assert resumed
    assert resumed == whole[-len(resumed) :]


def test_weights_of_objectives_are_not_in_the_students_file(folder, toy_parts):
    hint = {"name": "toy_hint", "student": "maxpool2", "teacher": "maxpool2"}
    run_whole(job_of(folder, objectives=[*KD, hint, {"name": "toy_adversary"}]))
    assert set(student_of(folder)) == {
        f"{layer}.{kind}" for layer in ("conv1", "conv2", "conv3", "fc1", "fc2") for kind in ("weight", "bias")
    }


def test_the_frozen_half_does_not_change_by_a_bit(folder, toy_parts):
    """After the first of two stages, layers behind the guided one still have their initial weights."""
    job = job_of(folder, procedure={"name": "toy_halves", "through": "maxpool2", "teacher_tap": "maxpool2"})
    run, _ = start(job)
    seen = {}

    def watch(stage_run):
        network = stage_run.members["student"].network
        seen.setdefault(stage_run.stage.name, []).append({k: v.clone() for k, v in network.state_dict().items()})
        grads = {name: parameter.grad for name, parameter in network.named_parameters()}
        if stage_run.stage.name == "features":
            assert grads["fc2.weight"] is None
            assert grads["conv1.weight"] is not None

    run.after_step = watch
    run.execute()
    first, second = seen["features"], seen["whole"]
    assert torch.equal(first[0]["fc1.weight"], first[-1]["fc1.weight"])
    assert not torch.equal(first[0]["conv1.weight"], first[-1]["conv1.weight"])
    assert not torch.equal(second[0]["fc1.weight"], second[-1]["fc1.weight"])


def test_the_teacher_never_changes(folder):
    before = load_file(folder / "inputs" / "teacher.safetensors")
    run, _ = start(job_of(folder, objectives=KD))
    run.execute()
    assert same_bits(before, {k: v.contiguous() for k, v in run.lineage.teacher.state_dict().items()})
    assert not any(parameter.requires_grad for parameter in run.lineage.teacher.parameters())
    assert not any(module.training for module in run.lineage.teacher.modules())


def test_a_drain_saves_a_checkpoint_from_which_the_run_continues(engine_inputs, tmp_path):
    for name in ("whole", "drained"):
        shutil.copytree(engine_inputs, tmp_path / name)
    run_whole(job_of(tmp_path / "whole", objectives=KD))
    run, output = start(job_of(tmp_path / "drained", objectives=KD))
    run.channel.request = "drain"
    with pytest.raises(Stopped, match="drain"):
        run.execute()
    (checkpoint,) = of_kind(events_of(output), "checkpoint")
    (tmp_path / "drained" / "manifest.json").write_text(json.dumps(checkpoint["manifest"]))
    values = {**job_of(tmp_path / "drained", objectives=KD).values, "resume": "manifest.json"}
    events = run_whole(Job(values, tmp_path / "drained"))
    assert events[0]["resumed_from"] == 1
    assert same_bits(student_of(tmp_path / "whole"), student_of(tmp_path / "drained"))


def test_a_cancel_saves_no_checkpoint(folder):
    run, output = start(job_of(folder))
    run.channel.request = "cancel"
    with pytest.raises(Stopped, match="cancel"):
        run.execute()
    assert not of_kind(events_of(output), "checkpoint")


def test_a_nan_loss_ends_the_run(folder):
    with pytest.raises(Diverged, match="the training diverged"):
        run_whole(job_of(folder, training={"optimizer": "sgd", "learning_rate": 1000.0, "steps": 30}))


def test_a_teacher_at_chance_level_stops_the_job_before_training(folder):
    path = folder / "inputs" / "teacher.safetensors"
    weights = load_file(path)
    torch.manual_seed(0)
    save_file({name: torch.randn_like(weight) * 0.01 for name, weight in weights.items()}, path)
    with pytest.raises(SpecError, match="at chance level"):
        run_whole(job_of(folder, objectives=KD))


def test_the_best_weights_on_validation_images_ship_if_requested(folder):
    training = {"validation_fraction": 0.25, "selection": "best", "steps": None, "epochs": 4}
    events = run_whole(job_of(folder, training=training))
    series = [
        event["values"]["validation/accuracy"] for event in events if "validation/accuracy" in event.get("values", {})
    ]
    assert len(series) == 4
    content = json.dumps(json.loads((folder / "output" / "report.json").read_text()))
    assert f"epoch {1 + series.index(max(series))}" in content
    assert "held-out training images" in content


def test_a_job_without_a_teacher_trains_on_labels(folder):
    job = job_of(folder)
    job = Job({**job.values, "teacher": None}, folder)
    job.spec["student"].update(classes=4, input=INPUT)
    run_whole(job)
    assert student_of(folder)["fc2.weight"].shape[0] == 4


def test_the_evaluation_is_reported_for_student_and_teacher(folder):
    job = job_of(folder, objectives=KD, evaluation={"dataset": "dts_x", "split": "train"})
    run_whole(Job({**job.values, "evaluation": "inputs/dataset.safetensors"}, folder))
    content = json.loads((folder / "output" / "report.json").read_text())
    assert "accuracy" in json.dumps(content)


def test_a_check_needs_neither_weights_nor_data(folder):
    job = job_of(folder, objectives=[*KD, {"name": "attention_transfer"}, {"name": "nst"}, {"name": "hint"}])
    shutil.rmtree(folder / "inputs")
    facts = check(job)
    assert facts["stages"] == ["distil"]
    assert facts["student"]["parameters"] < facts["teacher"]["parameters"]


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        ({"objectives": [{"name": "kd"}, {"name": "nst", "taps": [["conv9", "conv1"]]}]}, "/objectives/1/taps/0/0"),
        ({"student": {"network": "resnet99_cifar", "options": {}}}, "/student/network"),
        (
            {"student": {"network": "mlp", "options": {}}, "objectives": [{"name": "attention_transfer"}]},
            "/objectives/0",
        ),
    ],
)
def test_a_check_points_at_parts_that_cannot_be_built(folder, spec, pointer):
    with pytest.raises(SpecError) as caught:
        check(job_of(folder, **spec))
    assert any(problem.pointer.startswith(pointer) for problem in caught.value.problems)


def test_an_objective_without_its_teacher_is_refused(folder):
    job = job_of(folder, objectives=[{"name": "cross_entropy"}, {"name": "kd"}])
    job.spec["student"].update(classes=4, input=INPUT)
    with pytest.raises(SpecError, match="/objectives/1: needs a teacher"):
        check(Job({**job.values, "teacher": None}, folder))


def test_the_command_prints_only_json_lines(folder):
    (folder / "job.json").write_text(json.dumps(dict(job_of(folder, objectives=KD).values)))
    done = subprocess.run(
        [sys.executable, "-m", "worker.distillation", str(folder / "job.json")],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["event"] == "done"


def test_the_command_ends_in_an_error_event(folder):
    values = dict(job_of(folder, objectives=[{"name": "kd", "temperature": -1.0}]).values)
    (folder / "job.json").write_text(json.dumps(values))
    done = subprocess.run(
        [sys.executable, "-m", "worker.distillation", str(folder / "job.json"), "--check"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    error = json.loads(done.stdout.splitlines()[-1])
    assert (error["event"], error["fault"], error["code"]) == ("error", "user", "invalid_spec")
    assert error["errors"] == [{"pointer": "/objectives/0/temperature", "message": "must be greater than 0, not -1.0"}]
