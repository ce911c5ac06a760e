"""Time limits: where training stops, what ships then, and what is refused."""

import io
import json
import shutil

import pytest

from tests.worker.distillation.killed_runs import (
    Killed,
    events_of,
    job_of,
    run_killed,
    run_whole,
    same_bits,
    student_of,
)
from worker.distillation.errors import CheckpointError
from worker.distillation.job import Job
from worker.distillation.process.event_pipe import Channel
from worker.distillation.reporting.measurement import Measurement
from worker.distillation.run import Run
from worker.distillation.trainer import deadline
from worker.distillation.trainer.checkpoint import FORMAT
from worker.distillation.trainer.deadline import TimeLimit

CONSTANT = {"schedule": "constant", "time_limit_minutes": 1}


@pytest.fixture
def folder(engine_inputs, tmp_path):
    return shutil.copytree(engine_inputs, tmp_path / "job")


@pytest.fixture
def passes_after(monkeypatch):
    """A function that lets the deadline pass after a number of steps."""

    def chosen(steps):
        asked = iter(range(10**6))
        monkeypatch.setattr(deadline.Deadline, "passed", lambda self: bool(self.minutes) and next(asked) >= steps)

    return chosen


def test_a_training_stopped_early_ships_the_student_of_as_many_steps(folder, engine_inputs, tmp_path, passes_after):
    passes_after(3)
    events = run_whole(job_of(folder, training={**CONSTANT, "steps": 5}))
    three = shutil.copytree(engine_inputs, tmp_path / "three")
    run_whole(job_of(three, training={"schedule": "constant", "steps": 3}))
    assert same_bits(student_of(folder), student_of(three))
    report = json.loads((folder / "output" / "report.json").read_text())
    assert report["summary"]["stopped_early"] == "time_limit"
    stage = report["stages"][0]["name"]
    assert report["stopped_early"] == {
        "reason": "time_limit", "minutes": 1, "stage": stage, "step": 3, "steps": 5,
    }  # fmt: skip
    assert report["stages"][0]["steps"] == 3
    assert "time limit of 1 minutes, after step 3 of 5" in " ".join(report["summary"]["notes"])
    assert [event for event in events if event["event"] == "log" and event["level"] == "warning"]


def test_a_finished_network_ships_instead_of_a_new_one(folder, engine_inputs, tmp_path, passes_after):
    passes_after(8)
    generations = {"objectives": [{"name": "kd"}], "training": CONSTANT}
    run_whole(job_of(folder, procedure={"name": "born_again", "generations": 3}, **generations))
    one = shutil.copytree(engine_inputs, tmp_path / "one")
    passes_after(10**6)
    run_whole(job_of(one, procedure={"name": "born_again", "generations": 1}, **generations))
    assert same_bits(student_of(folder), student_of(one))


def test_a_preparatory_stage_ships_nothing(folder, toy_parts, passes_after):
    passes_after(2)
    halves = {"name": "toy_halves", "through": "maxpool2", "teacher_tap": "maxpool2"}
    with pytest.raises(TimeLimit, match="before the student was trained"):
        run_whole(job_of(folder, procedure=halves, training=CONSTANT))


@pytest.mark.parametrize("more", [{"training": {"time_limit_minutes": 1e-6}}, {"used": 61.0}])
def test_time_used_by_earlier_attempts_counts(folder, more):
    job = job_of(folder, training=more.get("training", {"time_limit_minutes": 1}))
    with pytest.raises(TimeLimit, match="time limit"):
        run_whole(Job({**job.values, "seconds_used": more.get("used", 0.0)}, folder))


def test_a_training_stopped_early_stays_stopped_after_a_resume(folder, engine_inputs, tmp_path, passes_after):
    """Even if the next attempt has time left."""
    passes_after(3)
    job = job_of(folder, training={**CONSTANT, "steps": 5})
    output = io.StringIO()
    run = Run(Job({**job.values, "checkpoint_seconds": 0}, folder), Channel(output))
    run.execute()
    run.checkpoints.flush()
    stopped = student_of(folder)
    (folder / "checkpoints" / "resume.json").write_text(json.dumps(manifests(output)[-1]))
    passes_after(10**6)
    events = run_whole(Job({**job.values, "resume": "checkpoints/resume.json", "seconds_used": 0.0}, folder))
    assert not [event for event in events if event["event"] in ("progress", "metrics")]
    assert same_bits(student_of(folder), stopped)
    report = json.loads((folder / "output" / "report.json").read_text())
    assert (report["stopped_early"]["step"], report["stages"][0]["steps"]) == (3, 3)


def manifests(output):
    return [event["manifest"] for event in events_of(output) if event["event"] == "checkpoint"]


def test_no_part_of_a_finished_training_is_repeated(folder, engine_inputs, tmp_path, monkeypatch):
    whole = shutil.copytree(engine_inputs, tmp_path / "whole")
    run_whole(job_of(whole))
    output = io.StringIO()

    def killed(*_):
        raise Killed

    job = job_of(folder)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Measurement, "measure", killed)
        run = Run(Job({**job.values, "checkpoint_seconds": 0}, folder), Channel(output))
        run.execute()
    run.checkpoints.flush()
    (folder / "checkpoints" / "resume.json").write_text(json.dumps(manifests(output)[-1]))
    events = run_whole(Job({**job.values, "resume": "checkpoints/resume.json"}, folder))
    assert not [event for event in events if event["event"] in ("progress", "metrics")]
    assert same_bits(student_of(folder), student_of(whole))


def test_progress_increases_with_every_checkpoint_including_warm_up(folder, toy_parts):
    output = io.StringIO()
    job = job_of(folder, source={"name": "toy_minmax"}, objectives=[{"name": "kd"}])
    run = Run(Job({**job.values, "checkpoint_seconds": 0}, folder), Channel(output))
    run.execute()
    run.checkpoints.flush()
    done = [manifest["done"] for manifest in manifests(output)]
    assert len(done) >= 8 and done == sorted(set(done))
    assert [manifest["step"] for manifest in manifests(output)][:3] == [0, 0, 0]


def test_a_checkpoint_of_another_version_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("worker.distillation.trainer.checkpoint.FORMAT", FORMAT + 1)
    output = io.StringIO()
    run = Run(job_of(folder), Channel(output))
    run.checkpoints.save(3, {}, wait=True)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="another version of the engine"):
        run.checkpoints.load(manifests(output)[0])


def test_a_checkpoint_that_does_not_fit_raises_a_checkpoint_error(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "worker.distillation.trainer.stage_run.StageRun.load_state_dict", lambda self, parts: parts["gone"]
    )
    with pytest.raises(CheckpointError, match="does not fit this version"):
        run_killed(job_of(folder), 2, tmp_path / "elsewhere")
