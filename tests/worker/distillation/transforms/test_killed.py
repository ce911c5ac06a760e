"""Every transform, killed in each phase and restored from files, ends with the same bits; its files build the same network again."""

import shutil

import pytest

from tests.worker.distillation.killed_runs import job_of, run_killed, run_whole, same_bits, student_of
from worker.distillation import registry

SHAPES = {
    # name: (transforms, other keys of the spec, steps to kill at)
    "lsq": ([{"name": "quantise", "bits": 3}], {}, (1, 3, 5)),
    "activations of few bits": ([{"name": "quantise", "bits": 3, "activations": 4}], {}, (1, 3)),
    "ternary": ([{"name": "quantise", "scheme": "ttq", "ends": "float"}], {}, (2, 5)),
    "buckets": ([{"name": "quantise", "scheme": "bucket", "bits": 2, "ends": "same"}], {}, (3,)),
    "points": ([{"name": "learned_points", "bits": 2}], {}, (1, 5)),
    "factors": ([{"name": "factorise", "keep": 0.5}], {}, (1, 5)),
    "pruned and shared": (
        [{"name": "prune", "begin": 0.0, "end": 0.6}, {"name": "share", "begin": 0.6, "linear_bits": 3}], {}, (1, 2, 3, 4, 5),
    ),
    "int8, aware": ([{"name": "int8", "begin": 0.4, "images": 32}], {}, (1, 2, 3, 5)),
    "int8 at the end": ([{"name": "int8", "aware": False, "images": 32}], {}, (2, 5)),
    "everything in its order": (
        [{"name": "factorise", "keep": 0.6}, {"name": "prune", "sparsity": 0.5, "begin": 0.0}, {"name": "quantise"},
         {"name": "int8", "begin": 0.5, "images": 32}], {}, (2, 4),
    ),
    "channels, without data": (
        [{"name": "prune_channels"}, {"name": "int8", "begin": 0.4, "images": 32}],
        {
            "source": {"name": "dafl", "generator_batch": 16, "generator_width": 8, "initial_generator_steps": 2, "pool_images": 64},
            "objectives": [{"name": "kd"}],
        }, (1, 4, 6),
    ),
    "with an average of the weights": (
        [{"name": "quantise"}, {"name": "int8", "images": 32}], {"training": {"average_weights": 0.9, "selection": "average"}}, (2, 5),
    ),
    "the best epoch": (
        [{"name": "prune", "begin": 0.0, "end": 0.5}, {"name": "quantise", "bits": 2}],
        {"training": {"validation_fraction": 0.25, "selection": "best", "steps": None, "epochs": 3}}, (4, 8),
    ),
}  # fmt: skip
KILLS = [(shape, at) for shape, (*_, steps) in SHAPES.items() for at in steps]


def job(shape, folder):
    transforms, rest, _ = SHAPES[shape]
    full = [dict(each) for each in transforms]
    return job_of(folder, transforms=full, **rest)


@pytest.fixture(scope="module")
def uninterrupted():
    """Students of uninterrupted runs, by shape."""
    return {}


def test_every_transform_is_killed():
    used = {each["name"] for transforms, *_ in SHAPES.values() for each in transforms}
    assert used == set(registry.names("transforms"))


@pytest.mark.parametrize(("shape", "at"), KILLS)
def test_killed_anywhere_and_restored_bit_equal(shape, at, engine_inputs, tmp_path, uninterrupted):
    if shape not in uninterrupted:
        shutil.copytree(engine_inputs, tmp_path / "whole")
        run_whole(job(shape, tmp_path / "whole"))
        uninterrupted[shape] = student_of(tmp_path / "whole")
    shutil.copytree(engine_inputs, tmp_path / "killed")
    run_killed(job(shape, tmp_path / "killed"), at, tmp_path / "restored")
    assert same_bits(uninterrupted[shape], student_of(tmp_path / "restored"))
