"""Every procedure, killed after any step of any stage and restored from bytes, writes the same files."""

import shutil

import pytest

from tests.worker.distillation.killed_runs import run_killed, run_whole, same_bits
from tests.worker.distillation.procedures.trained import CE, HALF, KD, LENET, taught, weights_of
from worker.distillation import registry

MUTUAL = {"name": "mutual"}
TERNARY = {"name": "quantise", "scheme": "ttq", "ends": "float"}
MLP = {"network": "mlp", "options": {"hidden": [8]}}

SHAPES = {
    # name: (procedure, other keys of the spec, files, steps)
    "direct": ({"name": "direct"}, {}, [], 3),
    "two stages": ({"name": "two_stage", "preset": "fitnets"}, {}, [], 3),
    "mutual in turn": (
        {"name": "mutual", "peers": [MLP, LENET]}, {"teacher": False, "objectives": [CE, MUTUAL]}, ["peer_1", "peer_2"], 3,
    ),
    "mutual at once, with a teacher": (
        {"name": "mutual", "update": "simultaneous", "student_member": 1}, {"objectives": [CE, KD, MUTUAL]}, ["cohort_student"], 3,
    ),
    "born again": ({"name": "born_again", "generations": 2}, {}, ["generation_1", "ensemble"], 6),
    "born again from nothing": (
        {"name": "born_again", "generations": 1}, {"teacher": False}, ["generation_0"], 6,
    ),
    "a chain": ({"name": "assistant", "assistants": [LENET, MLP]}, {}, ["assistant_1", "assistant_2"], 9),
    "a stop": ({"name": "early_stopped"}, {}, [], 3),
    "a teacher half trained": (
        {"name": "early_stopped", "teacher": MLP, "teacher_epochs": 2, "teacher_stop": 0.5}, {"teacher": False}, ["teacher"], 11,
    ),
    "a route": (
        {"name": "route", "teacher": MLP, "teacher_epochs": 2, "anchors": 2}, {"teacher": False}, ["teacher"], 11,
    ),
    "an apprentice beside its teacher": (
        {"name": "apprentice", "scheme": "a"},
        {"teacher": False, "objectives": [CE, MUTUAL], "transforms": [TERNARY]}, ["teacher"], 3,
    ),
    "an apprentice of a trained teacher": ({"name": "apprentice"}, {"transforms": [TERNARY]}, [], 3),
    "an apprentice that was of full precision": (
        {"name": "apprentice", "scheme": "c"}, {"transforms": [TERNARY], "training": {"steps": 4}}, ["full_precision"], 4,
    ),
    "a route of factors": (
        {"name": "route", "teacher": MLP, "teacher_epochs": 2, "anchors": 2},
        {"teacher": False, "transforms": [{"name": "factorise", "keep": 0.6}, {"name": "quantise"}]}, ["teacher"], 11,
    ),
    "a route that skips": (
        {"name": "route", "teacher": MLP, "teacher_epochs": 3, "anchors": 3, "choice": "greedy", "delta": 1e-9},
        {"teacher": False, "training": {"steps": 3, "validation_fraction": 0.25}}, ["teacher"], 12,
    ),
}  # fmt: skip
ELSEWHERE = {"architecture_search", "source_trials"}
"""Killed in their own tests, with a simulated clock or without data."""
KILLS = [
    pytest.param(shape, at, marks=() if at in (1, steps // 2, steps) else pytest.mark.slow)
    for shape, (*_, steps) in SHAPES.items()
    for at in range(1, steps + 1)
]


def job(shape, folder):
    procedure, rest, _, _ = SHAPES[shape]
    return taught(folder, procedure, **({"training": {"steps": 3}, "student": dict(HALF)} | rest))


def files_of(shape, folder):
    return {name: weights_of(folder, name) for name in ("student", *SHAPES[shape][2])}


@pytest.fixture(scope="module")
def undisturbed():
    """Files of uninterrupted runs, by case."""
    return {}


def test_every_procedure_is_killed():
    assert {procedure["name"] for procedure, *_ in SHAPES.values()} | ELSEWHERE == set(registry.names("procedures"))


@pytest.mark.parametrize(("shape", "at"), KILLS)
def test_killed_anywhere_and_restored_bit_equal(shape, at, engine_inputs, tmp_path, undisturbed):
    if shape not in undisturbed:
        shutil.copytree(engine_inputs, tmp_path / "whole")
        run_whole(job(shape, tmp_path / "whole"))
        undisturbed[shape] = files_of(shape, tmp_path / "whole")
    shutil.copytree(engine_inputs, tmp_path / "killed")
    run_killed(job(shape, tmp_path / "killed"), at, tmp_path / "restored")
    restored = files_of(shape, tmp_path / "restored")
    assert all(same_bits(weights, restored[name]) for name, weights in undisturbed[shape].items())
