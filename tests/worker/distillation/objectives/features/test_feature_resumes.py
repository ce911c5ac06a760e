"""Runs of the feature objectives: killed in every stage and restored, they end bit-equal; and their refusals."""

import shutil

import pytest

from tests.worker.distillation.killed_runs import (
    INPUT,
    job_of,
    run_killed,
    run_whole,
    same_bits,
    student_of,
    with_residual_teacher,
)
from worker.distillation.check import check
from worker.distillation.errors import SpecError
from worker.distillation.job import Job

LABEL = {"name": "cross_entropy"}
SAME = {"student": {"network": "lenet5", "options": {}}}
FSP_FIRST = {"name": "two_stage", "first": [{"name": "fsp", "sections": "adjacent"}]}
AB_FIRST = {"name": "two_stage", "first": [{"name": "activation_boundary"}], "second": [{"name": "kd"}]}

SHAPES = {
    "fsp": SAME | {"procedure": FSP_FIRST},
    "activation_boundary": {"procedure": AB_FIRST},
    "review": {"objectives": [LABEL, {"name": "review"}]},
    "attention_gradient": {"objectives": [LABEL, {"name": "attention_gradient"}]},
    "symmetry": {"objectives": [LABEL, {"name": "attention_gradient", "against": "symmetry"}]},
    "overhaul": {"objectives": [LABEL, {"name": "overhaul"}]},
}


@pytest.fixture(scope="module")
def residual_inputs(engine_inputs, tmp_path_factory):
    """The same dataset with a teacher that has BatchNorm."""
    return with_residual_teacher(engine_inputs, tmp_path_factory.mktemp("residual") / "engine")


def job_for(shape, folder):
    job = job_of(folder, **SHAPES[shape], training={"steps": 4})
    if shape == "overhaul":
        job.values["teacher"]["network"] = "resnet8_cifar"
    return job


@pytest.mark.parametrize("at", range(1, 5))
@pytest.mark.parametrize("shape", SHAPES)
def test_killed_anywhere_and_restored_bit_equal(shape, at, engine_inputs, residual_inputs, tmp_path):
    inputs = residual_inputs if shape == "overhaul" else engine_inputs
    for name in ("whole", "killed"):
        shutil.copytree(inputs, tmp_path / name)
    check(job_for(shape, tmp_path / "whole"))
    run_whole(job_for(shape, tmp_path / "whole"))
    run_killed(job_for(shape, tmp_path / "killed"), at, tmp_path / "restored")
    assert same_bits(student_of(tmp_path / "whole"), student_of(tmp_path / "restored"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_matched_in_single_precision(engine_inputs, tmp_path, precision):
    folder = shutil.copytree(engine_inputs, tmp_path / "job")
    objectives = [{"name": "attention_gradient"}]
    events = run_whole(job_of(folder, objectives=objectives, training={"precision": precision, "steps": 1}))
    (value,) = [event["values"]["loss"] for event in events if "loss" in event.get("values", {})]
    whole = shutil.copytree(engine_inputs, tmp_path / "whole")
    exact = run_whole(job_of(whole, objectives=objectives, training={"precision": "fp32", "steps": 1}))
    assert value == next(event["values"]["loss"] for event in exact if "loss" in event.get("values", {}))


@pytest.mark.parametrize("action", [check, run_whole])
@pytest.mark.parametrize("name", ["fsp", "overhaul"])
def test_networks_that_do_not_fit_are_refused_with_their_place(name, action, engine_inputs, tmp_path):
    folder = shutil.copytree(engine_inputs, tmp_path / "job")
    with pytest.raises(SpecError) as caught:
        action(job_of(folder, objectives=[LABEL, {"name": name}]))
    assert {problem.pointer for problem in caught.value.problems} == {"/objectives/1/taps"}


def test_symmetry_trains_without_a_teacher(engine_inputs, tmp_path):
    folder = shutil.copytree(engine_inputs, tmp_path / "job")
    job = job_of(folder, **SHAPES["symmetry"])
    job.spec["student"].update(classes=4, input=INPUT)
    run_whole(Job({**job.values, "teacher": None}, folder))
    assert student_of(folder)
