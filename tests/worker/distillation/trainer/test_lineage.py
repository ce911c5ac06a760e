"""The origin of networks."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tests.worker.distillation.killed_runs import INPUT, job_of, run_whole
from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.errors import SpecError
from worker.distillation.job import Job
from worker.distillation.procedure import StageResult
from worker.distillation.trainer.checkpoint import Checkpoints
from worker.distillation.trainer.lineage import Lineage


@pytest.fixture
def folder(engine_inputs, tmp_path):
    return shutil.copytree(engine_inputs, tmp_path / "job")


def lineage_of(job):
    return Lineage(job, Checkpoints(job.folder / "checkpoints"), torch.device("cpu"))


def given(folder, network):
    """A job whose student has initial weights of `network`."""
    weights = networks.build(network, 4, read_contract(INPUT), {}).state_dict()
    save_file(weights, folder / "inputs" / "initial.safetensors")
    return Job({**job_of(folder).values, "initial_weights": "inputs/initial.safetensors"}, folder), weights


def test_the_student_starts_with_the_given_weights(folder):
    job, weights = given(folder, "lenet5_half")
    lineage = lineage_of(job)
    student = lineage.initial(lineage.next(), "student").state_dict()
    assert all(torch.equal(student[name], weight) for name, weight in weights.items())


def test_weights_of_another_network_are_refused_by_name(folder):
    job, _ = given(folder, "lenet5")
    with pytest.raises(SpecError, match="the weights do not fit `lenet5_half`") as caught:
        run_whole(job)
    assert [problem.pointer for problem in caught.value.problems] == ["/student/initial_weights"]


def initial_weights_of(folder, words):
    job = job_of(folder, student={"network": "lenet5_half", "options": {}, "initial_weights": words})
    lineage = lineage_of(job)
    return lineage.initial(lineage.next(), "student").state_dict(), lineage.teacher.state_dict()


def test_the_student_starts_with_slices_of_its_teacher(folder):
    student, teacher = initial_weights_of(folder, "teacher")
    assert student["fc2.bias"].equal(teacher["fc2.bias"])
    assert all(any(own.equal(other) for other in teacher["conv3.bias"]) for own in student["conv3.bias"])
    again, _ = initial_weights_of(folder, "teacher")
    assert all(torch.equal(again[name], value) for name, value in student.items())


def test_random_weights_are_those_of_the_seed(folder):
    random, default = (initial_weights_of(folder, words)[0] for words in ("random", None))
    assert all(torch.equal(default[name], value) for name, value in random.items())


def test_slices_without_a_teacher_are_refused(folder):
    student = {"network": "lenet5_half", "options": {}, "initial_weights": "teacher", "classes": 4, "input": INPUT}
    job = job_of(folder, student=student)
    with pytest.raises(SpecError, match="needs a teacher, and the job has none"):
        run_whole(Job({**job.values, "teacher": None}, folder))


def test_two_stages_of_one_name_are_an_error(folder):
    lineage = lineage_of(job_of(folder))
    stage = lineage.next()
    lineage.procedure.next = lambda history, plan: replace(stage, epochs=2)
    lineage.history.append(StageResult(stage.name, 1, {}))
    with pytest.raises(RuntimeError, match="two stages the name 'distil'"):
        lineage.next()
