"""A source's warnings about its own training appear once in the job's events, and in its report."""

import json
import shutil

import pytest

from tests.worker.distillation.killed_runs import job_of, run_killed, run_whole
from worker.distillation.synthesis import collapse, estimate

SOURCE = {
    "name": "dafl", "generator_width": 4, "latent": 8, "generator_batch": 16, "adversarial_weight": 1.0,
    "initial_generator_steps": 2, "student_steps_per_generator_step": 1, "pool_images": 16, "precision": "fp32",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_warning_of_the_estimate(monkeypatch):
    """These short trainings teach a student nothing."""
    monkeypatch.setattr(estimate, "FAIR", 0.0)


@pytest.fixture
def job(engine_inputs, tmp_path, monkeypatch):
    """A job whose check treats any disagreement at the tenth generator step as too large."""
    monkeypatch.setattr(collapse, "WINDOW", 8)
    monkeypatch.setattr(collapse, "RUNAWAY", 0.0)
    monkeypatch.setattr(collapse, "GROWN", 0.0)
    shutil.copytree(engine_inputs, tmp_path / "job")
    return job_of(tmp_path / "job", source=SOURCE, objectives=[{"name": "kd"}], training={"steps": 20})


def warnings(events):
    return [event["message"] for event in events if event["event"] == "log" and event["level"] == "warning"]


def notes_of(folder):
    return json.loads((folder / "output/report.json").read_text())["summary"]["notes"]


def test_a_warning_is_logged_once_and_is_in_the_report(job):
    (words,) = warnings(run_whole(job))
    assert words.startswith("stage 'distil': the students' disagreement with the teacher on new images rose from ")
    assert "by generator step 10," in words and notes_of(job.folder)[-1] == words


@pytest.mark.parametrize(("at", "logged_again"), [(4, 1), (15, 0)])
def test_a_restored_run_does_not_repeat_a_warning(at, logged_again, job, tmp_path):
    events = run_killed(job, at, tmp_path / "restored")
    assert len(warnings(events)) == logged_again
    assert ["disagreement" in note for note in notes_of(tmp_path / "restored")].count(True) == 1
