"""The weights that ship: the last, or the best on held-out images, with transforms applied."""

import json
import shutil

import pytest

from tests.worker.distillation.killed_runs import job_of, run_whole, student_of

BEST = {"validation_fraction": 0.25, "selection": "best"}
QUANTISED = {"transforms": [{"name": "toy_quantise"}]}


@pytest.fixture
def folder(engine_inputs, tmp_path):
    return shutil.copytree(engine_inputs, tmp_path / "job")


def report_of(folder):
    return json.loads((folder / "output" / "report.json").read_text())


def test_the_best_weights_ship_with_their_transform_applied(folder, toy_parts):
    run_whole(job_of(folder, **QUANTISED, training=BEST | {"steps": None, "epochs": 2}))
    assert report_of(folder)["chosen_weights"]["checkpoint"].startswith("epoch")
    weights = student_of(folder)
    assert all(len(weights[f"{layer}.weight"].unique()) <= 4 for layer in ("conv1", "conv2", "conv3", "fc1", "fc2"))


def test_a_snapshot_of_a_network_with_a_transform_can_teach(folder, toy_parts):
    training = {"steps": None, "epochs": 1}
    procedure, objectives = {"name": "toy_route"}, [{"name": "kd"}]
    run_whole(job_of(folder, **QUANTISED, procedure=procedure, objectives=objectives, training=training))
    assert [stage["name"] for stage in report_of(folder)["stages"]] == ["teacher", "early", "late"]


@pytest.mark.parametrize(("steps", "epochs"), [(2, 1), (4, 2)])
def test_a_stage_that_ends_within_an_epoch_is_measured_at_its_end(folder, steps, epochs):
    events = run_whole(job_of(folder, training=BEST | {"steps": steps}))  # an epoch has three steps
    measured = [event["step"] for event in events if "validation/accuracy" in event.get("values", {})]
    assert len(measured) == epochs
    assert measured[-1] == steps
    assert report_of(folder)["chosen_weights"]["checkpoint"].startswith("epoch")
