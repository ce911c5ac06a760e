"""The running average of a student's weights: its formula, its restoration after a kill, and when it ships."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.worker.distillation.killed_runs import job_of, run_killed, run_whole, same_bits, student_of
from worker.distillation.errors import SpecError
from worker.distillation.trainer.weight_average import RunningAverage, decay_at
from worker.distillation.training import Training

AVERAGE = {"average_weights": 0.9, "selection": "average"}


@pytest.fixture
def folder(engine_inputs, tmp_path):
    return shutil.copytree(engine_inputs, tmp_path / "job")


def report_of(folder):
    return json.loads((folder / "output" / "report.json").read_text())


def test_the_decay_increases_to_the_given_value():
    assert [decay_at(step, 0.5) for step in (0, 1, 7, 8, 9, 1000)] == [0.1, 2 / 11, 8 / 17, 0.5, 0.5, 0.5]


def test_the_average_equals_the_sum_in_its_formula():
    """The value after step n has the weight (1 - d_n) times the product of all later decays."""
    draw = torch.Generator().manual_seed(0)
    network, decay = nn.Linear(3, 2), 0.7
    average = RunningAverage(network, decay)
    seen = [network.weight.detach().clone()]
    for _ in range(12):
        with torch.no_grad():
            network.weight.copy_(torch.randn(2, 3, generator=draw))
        average.update(network)
        seen.append(network.weight.detach().clone())
    decays = [min(decay, (1 + step) / (10 + step)) for step in range(12)]
    expected = torch.zeros(2, 3)
    for number, value in enumerate(seen):
        share = 1.0 if number == 0 else 1 - decays[number - 1]
        for later in decays[number:]:
            share *= later
        expected += share * value
    torch.testing.assert_close(average.values["weight"], expected)


def test_running_statistics_are_averaged_and_counters_are_copied():
    network = nn.BatchNorm1d(2)
    average = RunningAverage(network, 0.9)
    network.train()(torch.randn(8, 2) + 3)
    average.update(network)
    torch.testing.assert_close(average.values["running_mean"], 0.9 * network.running_mean)  # the first decay is 0.1
    assert average.values["num_batches_tracked"] == 1
    assert average.values["weight"] is not network.weight


@pytest.mark.parametrize("at", [1, 3, 5])
@pytest.mark.parametrize("transforms", [[], [{"name": "toy_quantise"}]])
def test_killed_anywhere_and_restored_bit_equal(engine_inputs, tmp_path, toy_parts, at, transforms):
    whole = shutil.copytree(engine_inputs, tmp_path / "whole")
    killed = shutil.copytree(engine_inputs, tmp_path / "killed")
    spec = {"training": AVERAGE, "transforms": transforms}
    run_whole(job_of(whole, **spec))
    run_killed(job_of(killed, **spec), at, tmp_path / "elsewhere")
    assert same_bits(student_of(whole), student_of(tmp_path / "elsewhere"))


def test_the_average_ships_if_selected_and_the_last_weights_are_measured_too(folder):
    evaluation = {"evaluation": "inputs/dataset.safetensors"}

    def run(name, training):
        place = shutil.copytree(folder, folder.parent / name)
        job = job_of(place, training=training)
        run_whole(type(job)({**job.values, **evaluation}, place))
        return report_of(place), load_file(place / "output" / "student.safetensors")

    average, averaged = run("average", AVERAGE)
    last, weights = run("last", {"average_weights": 0.9})
    plain, unchanged = run("plain", {})
    assert (average["chosen_weights"]["checkpoint"], average["other_weights"]["checkpoint"]) == ("average", "last")
    assert (last["chosen_weights"]["checkpoint"], last["other_weights"]["checkpoint"]) == ("last", "average")
    assert plain["other_weights"] is None
    assert average["evaluation"]["student"] == last["other_weights"]["evaluation"]["student"]
    assert last["evaluation"]["student"] == average["other_weights"]["evaluation"]["student"]
    assert same_bits(weights, unchanged)
    assert not same_bits(weights, averaged)


def test_selecting_the_average_needs_its_decay():
    with pytest.raises(SpecError, match="/training/average_weights"):
        Training.from_spec({"selection": "average"})
