"""Each transform by itself: without data, and in every generation of born-again networks; killed in each phase and restored."""

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
from tests.worker.distillation.procedures.trained import CE, KD, weights_of
from worker.distillation import registry

EACH = {
    "factorise": {"name": "factorise", "keep": 0.6},
    "prune_channels": {"name": "prune_channels"},
    "prune": {"name": "prune", "begin": 0.0, "end": 0.6},
    "share": {"name": "share", "begin": 0.5},
    "quantise": {"name": "quantise", "bits": 3, "activations": 4},
    "learned_points": {"name": "learned_points", "bits": 3},
    "int8": {"name": "int8", "begin": 0.4, "images": 32},
}
DAFL = {"name": "dafl", "generator_batch": 16, "generator_width": 8, "initial_generator_steps": 2, "pool_images": 64}
PHASES = {"synthesising": 1, "the first steps": 4, "later steps": 6}
"""Steps after which a run without data is killed: two of the generator alone, then five of the student."""
GENERATIONS = {"the first generation": 2, "the second": 6, "the third": 10}
"""The same with three stages of four steps."""


def without_data(inputs, folder, name):
    """A residual student of a residual teacher, since BatchNorm is folded and its statistics are the generator's."""
    with_residual_teacher(inputs, folder)
    student = {"network": "resnet8_cifar", "options": {}}
    job = job_of(folder, source=DAFL, objectives=[KD], transforms=[EACH[name]], student=student)
    job.values["teacher"]["network"] = "resnet8_cifar"
    return job


def generations(inputs, folder, name):
    shutil.copytree(inputs, folder)
    procedure = {"name": "born_again", "generations": 3}
    return job_of(folder, procedure=procedure, objectives=[CE, KD], transforms=[EACH[name]], training={"steps": 4})


@pytest.fixture(scope="module")
def whole():
    """Folders of uninterrupted runs, by kind of job and transform."""
    return {}


def once(make, inputs, folder, name, whole):
    """The folder of the uninterrupted run."""
    if (make, name) not in whole:
        run_whole(make(inputs, folder, name))
        whole[make, name] = folder
    return whole[make, name]


def test_none_is_left_out():
    assert set(EACH) == set(registry.names("transforms"))


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", EACH)
def test_without_data_and_killed(name, phase, engine_inputs, tmp_path, whole):
    done = once(without_data, engine_inputs, tmp_path / "whole", name, whole)
    job = without_data(engine_inputs, tmp_path / "killed", name)
    run_killed(job, PHASES[phase], tmp_path / "restored")
    assert same_bits(student_of(done), student_of(tmp_path / "restored"))


@pytest.mark.slow
@pytest.mark.parametrize("phase", GENERATIONS)
@pytest.mark.parametrize("name", EACH)
def test_in_every_generation_and_killed(name, phase, engine_inputs, tmp_path, whole):
    done = once(generations, engine_inputs, tmp_path / "whole", name, whole)
    job = generations(engine_inputs, tmp_path / "killed", name)
    run_killed(job, GENERATIONS[phase], tmp_path / "restored")
    for network in ("student", "generation_1", "generation_2"):
        assert same_bits(weights_of(done, network), weights_of(tmp_path / "restored", network))
