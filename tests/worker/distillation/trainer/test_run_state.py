"""A run's state is restored from the bytes of a checkpoint, field by field."""

from dataclasses import fields, replace

import pytest
import torch

from worker.distillation.procedure import StageResult
from worker.distillation.trainer.checkpoint import decode, encode
from worker.distillation.trainer.run_state import BestWeights, RunState

BEST = BestWeights(
    place="distil/student",
    epoch=2,
    value=0.75,
    weights={"fc.weight": torch.arange(6.0).view(2, 3)},
    objectives={"objectives.0.scale": torch.ones(1)},
)
SAVED = {
    "history": [
        StageResult("first", 30, {"loss": 0.5, "validation/student/accuracy": 0.25}, snapshots=(1, 3)),
        StageResult("second", 7, {}),
    ],
    "steps_before": 37,
    "generator_steps_before": 12,
    "restarts": 2,
    "seconds": 98.5,
    "phase_seconds": {"distilling": 90.0, "synthesising": 8.5},
    "best": BEST,
    "stopped_early": {"reason": "time_limit", "minutes": 1.5, "stage": "second", "step": 7, "steps": 9},
    "warnings": ["the images are alike"],
    "teacher_check": {"images": 64, "taken": {"mean": [0.5], "std": [0.25]}},
    "random_states": [{"torch": torch.tensor([1, 2], dtype=torch.uint8), "python": (3, (1, 2), None)}, {"python": ()}],
}
"""A value for every field that differs from its default."""


def through_bytes(state, folder):
    """The state after each of its parts is written to a file and read back."""
    parts = {}
    for name, part in state.state_dict().items():
        path = folder / name
        path.write_bytes(encode(part))
        parts[name] = decode(path)
    return RunState.from_state(parts | {"stage": {"number": 3}})


def same(one, other):
    """Whether two nested states are equal, including the types of containers."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (BestWeights, StageResult)):
        return same(vars(one), vars(other))
    return one == other


def test_there_is_a_value_for_every_field():
    assert list(SAVED) == [each.name for each in fields(RunState)]
    defaults = vars(RunState())
    assert [name for name, value in SAVED.items() if same(value, defaults[name])] == []


@pytest.mark.parametrize("name", [each.name for each in fields(RunState)])
def test_every_field_is_restored(name, tmp_path):
    """Each alone, so that no field is restored by another."""
    restored = through_bytes(replace(RunState(), **{name: SAVED[name]}), tmp_path)
    assert same(vars(restored), vars(RunState()) | {name: SAVED[name]})


def test_the_whole_state_is_restored(tmp_path):
    assert same(vars(through_bytes(RunState(**SAVED), tmp_path)), SAVED)


def test_the_best_weights_are_a_separate_part():
    assert set(RunState(**SAVED).state_dict()) == {"run", "best"}
    assert set(RunState().state_dict()) == {"run"}


def test_a_state_with_a_missing_or_unknown_field_is_refused():
    parts = RunState().state_dict()
    lacking = {"run": {name: value for name, value in parts["run"].items() if name != "seconds"}}
    for wrong in (lacking, {"run": parts["run"] | {"mood": 1}}):
        with pytest.raises((KeyError, TypeError)):
            RunState.from_state(wrong)


def test_progress_increases_with_every_kind_of_step():
    state = replace(RunState(**SAVED), stopped_early=None)
    done = state.done(steps=4, generator_steps=1, finished=False)
    assert done == 37 + 12 + 2 + 4 + 1
    assert state.done(5, 1, False) == state.done(4, 2, False) == state.done(4, 1, True) == done + 1
    assert RunState(**SAVED).done(4, 1, False) == done + 1  # it has stopped early
