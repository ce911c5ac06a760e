"""Methods of every shape, killed in any stage and restored from files, end with the same bits."""

import shutil

import pytest

from tests.worker.distillation.killed_runs import job_of, run_killed, run_whole, same_bits, student_of

LABEL = {"name": "cross_entropy"}
HALVES = {"name": "toy_halves", "through": "maxpool2", "teacher_tap": "maxpool2"}

SHAPES = {
    # name: (spec, number of steps)
    "plain": ({}, 5),
    "two stages with frozen layers": ({"procedure": HALVES}, 10),
    "an adversary with its own optimiser": ({"objectives": [LABEL, {"name": "toy_adversary"}]}, 5),
    "a cohort": ({"procedure": {"name": "toy_cohort"}, "objectives": [{"name": "toy_peers"}]}, 5),
    "a cohort in turn": (
        {"procedure": {"name": "toy_cohort", "update": "sequential"}, "objectives": [{"name": "toy_peers"}]}, 5,
    ),
    "a quantising transform": ({"transforms": [{"name": "toy_quantise"}]}, 5),
    "a source that trains on the live student": (
        {"source": {"name": "toy_minmax"}, "objectives": [{"name": "kd"}]}, 8,  # three of them warm-up
    ),
    "a pre-pass": ({"objectives": [{"name": "toy_prepass"}]}, 5),
    "a gradient to the input": ({"objectives": [{"name": "toy_input_gradient"}]}, 5),
    "a memory bank": ({"objectives": [LABEL, {"name": "toy_bank"}]}, 5),
    "snapshots of a teacher that is trained first": (
        {"procedure": {"name": "toy_route"}, "objectives": [{"name": "kd"}], "training": {"steps": None, "epochs": 1}}, 16,
    ),
    "augmentation, momentum and a schedule of a weight": (
        {
            "source": {"name": "dataset", "augmentation": "standard"},
            "objectives": [LABEL, {"name": "kd", "weight": {"schedule": "linear", "start": 1, "end": 0}}],
        }, 5,
    ),
    "a second view, with and without a teacher": (
        {
            "source": {"name": "dataset", "augmentation": "standard"},
            "objectives": [LABEL | {"second_view": True}, {"name": "multi_level"}],
        }, 5,
    ),
    "a validation split and its best epoch": (
        {"training": {"validation_fraction": 0.25, "selection": "best", "steps": None, "epochs": 3}}, 9,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted():
    """Students of uninterrupted runs, by shape."""
    return {}


KILLS = [
    pytest.param(shape, at, marks=() if at in (1, steps // 2, steps) else pytest.mark.slow)
    for shape, (_, steps) in SHAPES.items()
    for at in range(1, steps + 1)
]


@pytest.mark.parametrize(("shape", "at"), KILLS)
def test_killed_anywhere_and_restored_bit_equal(shape, at, toy_parts, engine_inputs, tmp_path, uninterrupted):
    spec, _ = SHAPES[shape]
    if shape not in uninterrupted:
        shutil.copytree(engine_inputs, tmp_path / "whole")
        run_whole(job_of(tmp_path / "whole", **spec))
        uninterrupted[shape] = student_of(tmp_path / "whole")
    shutil.copytree(engine_inputs, tmp_path / "killed")
    run_killed(job_of(tmp_path / "killed", **spec), at, tmp_path / "restored")
    assert same_bits(uninterrupted[shape], student_of(tmp_path / "restored"))
