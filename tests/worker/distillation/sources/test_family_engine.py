"""Whole jobs on the synthesising sources: killed in every phase and restored, and refused before anything is built."""

import shutil

import pytest

from tests.worker.distillation.killed_runs import (
    job_of,
    run_killed,
    run_whole,
    same_bits,
    student_of,
    with_residual_teacher,
)
from worker.distillation import registry
from worker.distillation.check import check
from worker.distillation.errors import SpecError
from worker.distillation.reporting import measurement
from worker.distillation.run import Run
from worker.distillation.synthesis import estimate, mixed_pool, pooled

SMALL = {"generator_batch": 16, "pool_images": 64, "generator_width": 4, "latent": 8}
ROUND = {"iterations": 2, "initial_rounds": 1, "student_steps_per_round": 2}
SOURCES = {
    "dfad": SMALL,
    "zskt": SMALL,
    "dfq": SMALL | {"initial_generator_steps": 2},
    "deep_inversion": {"generator_batch": 16, "pool_images": 64} | ROUND,
    "fast_meta": SMALL | ROUND,
    "cmi": SMALL | ROUND | {"memory": 32, "negatives": 8, "embedding": 8},
    "nayer": SMALL | ROUND,
    "cpnet": {"generator_batch": 16, "pool_images": 64, "latent": 8, "procedural_share": 0.5} | ROUND,
    "procedural": {
        "generator_batch": 16, "pool_images": 64, "first_batches": 2, "student_steps_per_batch": 2, "family_images": 16,
    },
}  # fmt: skip
KILLS = {name: range(1, 8) for name in ("deep_inversion", "fast_meta")} | {
    "dfad": (3,), "dfq": (4,), "zskt": (2,), "cmi": (5,), "nayer": (6,), "cpnet": (1, 4, 6), "procedural": (1, 3),
}  # fmt: skip
QUICK = {("fast_meta", 4), ("dfq", 4), ("procedural", 3)}
"""The others are slow tests."""
QUICK_SOURCES = ("dfad", "fast_meta", "procedural")


@pytest.fixture(autouse=True)
def few_images_at_the_end(monkeypatch):
    """Measuring on 1,024 refined images would take longer than these trainings."""
    monkeypatch.setattr(measurement, "SYNTHETIC_SAMPLES", 32)
    monkeypatch.setattr(estimate, "IMAGES", 32)
    monkeypatch.setattr(estimate, "LEAST_DRAWN", 32)
    monkeypatch.setattr(mixed_pool, "FAMILY_IMAGES", 16)


@pytest.fixture(scope="module")
def inputs(engine_inputs, tmp_path_factory):
    """A teacher with BatchNorm."""
    return with_residual_teacher(engine_inputs, tmp_path_factory.mktemp("family") / "engine")


def job_for(name, folder):
    objectives = list(registry.find("sources", name).objective_defaults)
    source = {"name": name, **SOURCES[name]}
    job = job_of(folder, source=source, objectives=objectives, training={"steps": 5})
    job.values["teacher"]["network"] = "resnet8_cifar"
    return job


@pytest.fixture(scope="module")
def undisturbed():
    """Students of uninterrupted runs, by source."""
    return {}


@pytest.mark.parametrize(
    ("name", "at"),
    [
        pytest.param(name, at, marks=() if (name, at) in QUICK else pytest.mark.slow)
        for name, kills in KILLS.items()
        for at in kills
    ],
)
def test_killed_anywhere_and_restored_bit_equal(name, at, inputs, tmp_path, undisturbed):
    if name not in undisturbed:
        shutil.copytree(inputs, tmp_path / "whole")
        check(job_for(name, tmp_path / "whole"))
        run_whole(job_for(name, tmp_path / "whole"))
        undisturbed[name] = student_of(tmp_path / "whole")
    shutil.copytree(inputs, tmp_path / "killed")
    run_killed(job_for(name, tmp_path / "killed"), at, tmp_path / "restored")
    assert same_bits(undisturbed[name], student_of(tmp_path / "restored"))


@pytest.mark.parametrize(
    ("source", "objectives"),
    [
        ({"name": "dafl", **SMALL}, [{"name": "kd"}, {"name": "nst", "weight": 5.0}]),
        ({"name": "dafl", **SMALL, "labels": "teacher"}, [{"name": "dkd"}, {"name": "cross_entropy"}]),
        ({"name": "dfad", **SMALL, "labels": "teacher"}, [{"name": "dkd"}]),
        (
            {"name": "nayer", **SOURCES["nayer"]},
            [{"name": "attention_transfer"}, {"name": "dist"}, {"name": "relational"}],
        ),
        ({"name": "noise"}, [{"name": "darkrank"}, {"name": "logit_distance"}]),
    ],
)
def test_objectives_learn_from_any_source_with_the_fields_that_they_need(source, objectives, inputs, tmp_path):
    job = job_for("dfad", shutil.copytree(inputs, tmp_path / "job"))
    job.spec.update(source=source, objectives=objectives)
    check(job)
    shown = [event["values"] for event in run_whole(job) if event["event"] == "metrics"][-1]
    for objective in objectives:
        assert any(name.startswith(f"{objective['name']}/") for name in shown), objective


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK_SOURCES else pytest.mark.slow) for name in SOURCES]
)
def test_progress_never_falls_and_ends_at_one(name, inputs, tmp_path):
    folder = shutil.copytree(inputs, tmp_path / "job")
    events = run_whole(job_for(name, folder))
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert [fraction for fraction in fractions if fraction >= 1] == [1]
    phases = [event["phase"] for event in events if event["event"] == "phase"]
    first = registry.make("sources", {"name": name, **SOURCES[name]}, "/source").generator_steps(0)
    assert ("synthesising" in phases) == (first > 0)


def test_epochs_end_once_though_rounds_come_between(inputs, tmp_path, monkeypatch):
    ends, original = [], Run._end_epoch
    monkeypatch.setattr(pooled, "STEPS_PER_EPOCH", 2)
    monkeypatch.setattr(Run, "_end_epoch", lambda run, stage: (ends.append(stage.number), original(run, stage)))
    run_whole(job_for("fast_meta", shutil.copytree(inputs, tmp_path / "job")))
    assert ends == [2, 4, 5]


def test_check_refuses_a_teacher_without_batch_norm(engine_inputs, tmp_path):
    folder = shutil.copytree(engine_inputs, tmp_path / "job")
    job = job_for("fast_meta", folder)
    job.values["teacher"]["network"] = "lenet5"
    with pytest.raises(SpecError, match="/teacher: has no BatchNorm"):
        check(job)
