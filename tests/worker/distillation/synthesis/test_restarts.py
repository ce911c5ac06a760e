"""A stage whose images collapse restarts with other loss weights, a bounded number of times."""

import json
import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.worker.distillation.killed_runs import job_of, run_killed, run_whole, same_bits, student_of
from worker.distillation import run
from worker.distillation.errors import Collapsed
from worker.distillation.synthesis import collapse, estimate

SOURCE = {
    "name": "dafl", "generator_width": 4, "latent": 8, "generator_batch": 16, "generator_learning_rate": 0.02,
    "one_hot_weight": 5.0, "entropy_weight": 0.0, "activation_weight": 0.0, "adversarial_weight": 0.0,
    "initial_generator_steps": 2, "student_steps_per_generator_step": 1, "pool_images": 16, "augmentation_probability": 0.0,
    "precision": "fp32",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_warning_of_the_estimate(monkeypatch):
    """These short trainings teach a student nothing."""
    monkeypatch.setattr(estimate, "FAIR", 0.0)


@pytest.fixture
def impatient(monkeypatch):
    """A collapse detection that needs only a few batches."""
    monkeypatch.setattr(collapse, "PATIENCE", 4)
    monkeypatch.setattr(collapse, "LOOK_EVERY", 2)


@pytest.fixture
def inputs(engine_inputs, tmp_path):
    """A teacher that predicts its first class for almost everything."""
    folder = tmp_path / "inputs of all"
    shutil.copytree(engine_inputs, folder)
    path = folder / "inputs/teacher.safetensors"
    state = load_file(path)
    last = [name for name in state if name.endswith("bias")][-1]
    state[last] = state[last] + torch.tensor([9.0, 0, 0, 0])
    save_file(state, path)
    return folder


@pytest.fixture(scope="module")
def undisturbed():
    """The last metrics and the student of an uninterrupted run."""
    return {}


def job(inputs, folder, steps=30, **source):
    shutil.copytree(inputs, folder)
    return job_of(folder, source=SOURCE | source, objectives=[{"name": "kd"}], training={"steps": steps})


def of(events, kind):
    return [event for event in events if event["event"] == kind]


def notes_of(folder):
    return json.loads((folder / "output/report.json").read_text())["summary"]["notes"]


def test_a_collapsed_stage_restarts_with_a_warning(inputs, impatient, tmp_path):
    made = job(inputs, tmp_path / "job")
    made.spec["reasons"] = {"/source": "dafl, since it was asked for"}
    events = run_whole(made)
    assert of(events, "log")[0]["message"] == "/source: dafl, since it was asked for"
    warnings = [event["message"] for event in of(events, "log") if event["level"] == "warning"]
    assert warnings and all("had collapsed by generator step" in words for words in warnings)
    assert "restarts with corrected loss weights (restart 1 of at most 2)" in warnings[0]
    assert [event["phase"] for event in of(events, "phase")].count("synthesising") == 1 + len(warnings)
    metrics = of(events, "metrics")
    assert metrics[-1]["values"]["generator/restarts"] == len(warnings)
    steps = [event["step"] for event in metrics]
    assert steps == sorted(steps) and steps[-1] > 30  # discarded steps count as done
    assert notes_of(tmp_path / "job")[-len(warnings) :] == warnings


def test_after_the_last_restart_the_job_fails_with_the_observation(inputs, impatient, tmp_path, monkeypatch):
    monkeypatch.setattr(collapse, "LEAST_BALANCE", 1.1)  # nothing is good enough
    tried = "; restarting with other loss weights did not help (1 of 1 restarts used)"
    for restarts, words in ((0, None), (1, tried)):
        with pytest.raises(Collapsed, match="entropy of the mean prediction") as error:
            run_whole(job(inputs, tmp_path / str(restarts), restarts=restarts))
        assert (words or "") in error.value.message and ("restart" in error.value.message) == bool(words)


def test_a_collapsed_stage_is_freed_before_the_next_is_built(inputs, impatient, tmp_path, monkeypatch):
    monkeypatch.setattr(collapse, "LEAST_BALANCE", 1.1)
    built, alive = [], []

    class Watched(run.StageRun):
        def __init__(self, *given, **named):
            alive.append(sum(each() is not None for each in built))
            super().__init__(*given, **named)
            built.append(weakref.ref(self.source.training.generator))

    monkeypatch.setattr(run, "StageRun", Watched)
    with pytest.raises(Collapsed):
        run_whole(job(inputs, tmp_path / "job"))
    assert alive == [0, 0, 0]


def test_weights_change_with_each_restart(inputs, impatient, tmp_path, monkeypatch):
    monkeypatch.setattr(collapse, "LEAST_BALANCE", 1.1)
    seen = []
    plain = collapse.corrected
    monkeypatch.setattr(
        "worker.distillation.synthesis.trained.corrected",
        lambda weights, restarts: seen.append(plain(weights, restarts)) or seen[-1],
    )
    with pytest.raises(Collapsed):
        run_whole(job(inputs, tmp_path / "job", entropy_weight=1.0, adversarial_weight=2.0))
    assert [each.information_entropy for each in seen] == [1, 2, 4] and [each.adversarial for each in seen] == [
        2,
        1,
        0.5,
    ]


@pytest.mark.parametrize("at", [2, 3, 6, 34])
def test_killed_before_and_after_restarts_and_restored_bit_equal(at, inputs, impatient, tmp_path, undisturbed):
    if not undisturbed:
        undisturbed["metrics"] = of(run_whole(job(inputs, tmp_path / "whole")), "metrics")[-1]
        undisturbed["student"] = student_of(tmp_path / "whole")
    killed = run_killed(job(inputs, tmp_path / "killed"), at, tmp_path / "restored")
    assert same_bits(undisturbed["student"], student_of(tmp_path / "restored"))
    assert of(killed, "metrics")[-1] == undisturbed["metrics"]


@pytest.mark.parametrize("source", ["dafl", "dfad"])
def test_a_teacher_with_constant_outputs_collapses_without_a_restart(source, engine_inputs, tmp_path):
    shutil.copytree(engine_inputs, tmp_path / "job")
    path = tmp_path / "job/inputs/teacher.safetensors"
    state = load_file(path)
    weight = [name for name in state if name.endswith("weight")][-1]
    save_file(state | {weight: torch.zeros_like(state[weight])}, path)
    spec = {"name": source, "generator_width": 4, "generator_batch": 16, "student_steps_per_generator_step": 1}
    planted = job_of(tmp_path / "job", source=spec, objectives=[{"name": "kd"}], training={"steps": 60})
    with pytest.raises(
        Collapsed, match="the teacher's outputs were the same for all images, although the images differ"
    ) as error:
        run_whole(planted)
    assert error.value.code == "collapsed" and error.value.fault == "job" and "restart" not in error.value.message
