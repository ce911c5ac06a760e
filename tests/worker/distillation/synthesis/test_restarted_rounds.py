"""Sources that work in rounds restart with corrected loss weights, like sources with one generator."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.worker.distillation.killed_runs import (
    job_of,
    run_killed,
    run_whole,
    same_bits,
    student_of,
    with_residual_teacher,
)
from worker.distillation.errors import Collapsed
from worker.distillation.synthesis import estimate, round_watch, rounds

ROUND = {
    "generator_batch": 16, "pool_images": 64, "iterations": 3, "initial_rounds": 2, "student_steps_per_round": 2,
    "augmentation_probability": 0.0, "precision": "fp32",
}  # fmt: skip
GENERATOR = {"generator_width": 4, "latent": 8}
SOURCES = {
    "deep_inversion": {},
    "cmi": GENERATOR | {"memory": 32, "negatives": 8, "embedding": 8},
    "fast_meta": GENERATOR,
    "nayer": GENERATOR,
    "cpnet": {"latent": 8},
}
RESTARTED = "restarts with corrected loss weights (restart {} of at most 2)"


@pytest.fixture(autouse=True)
def no_warning_of_the_estimate(monkeypatch):
    """These short trainings teach a student nothing."""
    monkeypatch.setattr(estimate, "FAIR", 0.0)


@pytest.fixture(scope="module")
def inputs(engine_inputs, tmp_path_factory):
    """A teacher with BatchNorm."""
    return with_residual_teacher(engine_inputs, tmp_path_factory.mktemp("rounds") / "engine")


@pytest.fixture
def displeased(monkeypatch):
    """Makes the images of a run's first attempts look collapsed in their second round, and all later ones healthy."""

    def until(attempts):
        seen, plain = [], rounds.corrected

        def noted(weights, restarts, **rest):
            monkeypatch.setattr(round_watch, "LEAST_BALANCE", 1.1 if restarts < attempts else -1.0)
            seen.append(plain(weights, restarts, **rest))
            return seen[-1]

        monkeypatch.setattr(round_watch, "POOR_ROUNDS", 2)
        monkeypatch.setattr(round_watch, "POOR_STEPS", 0)
        monkeypatch.setattr(rounds, "corrected", noted)
        return seen

    return until


def job_for(name, inputs, folder, **source):
    shutil.copytree(inputs, folder)
    spec = {"name": name} | ROUND | SOURCES[name] | source
    job = job_of(folder, source=spec, objectives=[{"name": "kd"}])
    job.values["teacher"]["network"] = "resnet8_cifar"
    return job


def warnings(events):
    return [event["message"] for event in events if event["event"] == "log" and event["level"] == "warning"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "fast_meta" else pytest.mark.slow) for name in SOURCES]
)
def test_a_collapsed_stage_restarts_with_a_warning(name, inputs, displeased, tmp_path):
    seen = displeased(1)
    events = run_whole(job_for(name, inputs, tmp_path / "job"))
    (words,) = warnings(events)
    assert words.startswith("the synthetic images had collapsed by round 1: for 2 rounds the teacher predicted few")
    assert words.endswith(RESTARTED.format(1))
    assert json.loads((tmp_path / "job/output/report.json").read_text())["notes"][-1] == words
    assert [event["phase"] for event in events if event["event"] == "phase"].count("synthesising") == 2
    metrics = [event["values"] for event in events if event["event"] == "metrics"]
    assert [values["generator/restarts"] for values in (metrics[0], metrics[-1])] == [0, 1]
    assert len(seen) == 2 and seen[1].one_hot == 2 * max(seen[0].one_hot, 1)


def test_after_the_last_restart_the_job_fails_with_the_observation(inputs, displeased, tmp_path):
    seen = displeased(9)
    with pytest.raises(
        Collapsed,
        match=r"few of the classes .*; restarting with other loss weights did not help \(2 of 2 restarts used\)",
    ):
        run_whole(job_for("fast_meta", inputs, tmp_path / "job", one_hot_weight=0.5, boundary_weight=2.0))
    assert [(each.one_hot, each.boundary, each.batch_statistics) for each in seen] == [(0.5, 2, 10), (2, 1, 10), (4, 0.5, 10)]  # fmt: skip
    with pytest.raises(Collapsed) as error:
        run_whole(job_for("fast_meta", inputs, tmp_path / "once", restarts=0))
    assert "restart" not in error.value.message


@pytest.mark.slow
def test_corrected_weights_bring_back_classes_that_were_lost(inputs, monkeypatch, tmp_path):
    monkeypatch.setattr(round_watch, "POOR_ROUNDS", 1)
    monkeypatch.setattr(round_watch, "POOR_STEPS", 0)
    monkeypatch.setattr(round_watch, "LEAST_BALANCE", 0.3)
    folder = tmp_path / "of a teacher that predicts its first class for almost everything"
    shutil.copytree(inputs, folder)
    state = load_file(folder / "inputs/teacher.safetensors")
    state["fc.bias"] = state["fc.bias"] + torch.tensor([6.0, 0, 0, 0])
    save_file(state, folder / "inputs/teacher.safetensors")
    asked = {
        "iterations": 30,
        "initial_rounds": 1,
        "learning_rate": 0.5,
        "one_hot_weight": 0.0,
        "statistics_weight": 0.01,
        "bounded": False,
    }
    events = run_whole(job_for("deep_inversion", folder, tmp_path / "job", student_steps_per_round=9, **asked))
    values = [event["values"] for event in events if event["event"] == "metrics"]
    last = [each["generator/class_balance"] for each in values if "generator/class_balance" in each][-1]
    assert warnings(events)[0].endswith(RESTARTED.format(1)) and last > 0.3


@pytest.fixture(scope="module")
def undisturbed():
    """Last metrics and students of uninterrupted runs, by source."""
    return {}


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("fast_meta", 6),
        *(
            pytest.param(name, at, marks=pytest.mark.slow)
            for name, at in (("fast_meta", 4), ("fast_meta", 14), ("deep_inversion", 7), ("cmi", 10), ("nayer", 8))
        ),
    ],
)
def test_killed_before_and_after_a_restart_and_restored_bit_equal(name, at, inputs, displeased, tmp_path, undisturbed):
    def last(events):
        return [event for event in events if event["event"] == "metrics"][-1]

    displeased(1)
    if name not in undisturbed:
        undisturbed[name] = last(run_whole(job_for(name, inputs, tmp_path / "whole"))), student_of(tmp_path / "whole")
    metrics, student = undisturbed[name]
    killed = run_killed(job_for(name, inputs, tmp_path / "killed"), at, tmp_path / "restored")
    assert metrics["values"]["generator/restarts"] == 1 and last(killed) == metrics
    assert same_bits(student, student_of(tmp_path / "restored"))
    notes = json.loads((tmp_path / "restored/output/report.json").read_text())["notes"]
    assert ["restarts with corrected loss weights" in note for note in notes].count(True) == 1
