"""The source `metadata`: images whose activations match a teacher's statistics."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillery_client.statistics import collect
from tests.worker.distillation.killed_runs import INPUT, job_of, run_killed, run_whole, same_bits, student_of
from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.errors import Collapsed, Diverged, SpecError
from worker.distillation.introspection.taps import Tapped
from worker.distillation.parameters import parse
from worker.distillation.source import Position, SourceContext
from worker.distillation.sources.metadata import Metadata

CONTRACT = read_contract(INPUT)
SMALL = {"generator_batch": 16, "iterations": 4, "rounds": 2, "augmentation_probability": 0.0, "precision": "fp32"}


@pytest.fixture(scope="module")
def inputs(engine_inputs, tmp_path_factory):
    """The engine's inputs, with statistics of their teacher on their dataset."""
    folder = tmp_path_factory.mktemp("metadata") / "job"
    shutil.copytree(engine_inputs, folder)
    data = load_file(folder / "inputs/dataset.safetensors")
    image = (data["train.image"].float() / 255 - 0.5) / 0.25
    teacher = networks.build("lenet5", 4, CONTRACT, {})
    teacher.load_state_dict(load_file(folder / "inputs/teacher.safetensors"))
    top = f"{[name for name, module in teacher.named_modules() if isinstance(module, torch.nn.Linear)][-1]}:in"
    found = collect(teacher, [(image, data["train.label"])], 4, ["conv2", top])
    save_file(found, folder / "inputs/statistics.safetensors")
    return folder


def made(folder, **values) -> Metadata:
    teacher = networks.build("lenet5", 4, CONTRACT, {}).eval().requires_grad_(False)
    teacher.load_state_dict(load_file(folder / "inputs/teacher.safetensors"))
    source = Metadata(parse(Metadata.Parameters, SMALL | {"statistics": "fil_1"} | values))
    context = SourceContext(
        Tapped(teacher, torch.zeros(2, 1, 16, 16)), CONTRACT, 4, None, 8, None, None, (), 5, torch.device("cpu"), "classification",
        files={"fil_1": folder / "inputs/statistics.safetensors"},
    )  # fmt: skip
    source.build(context)
    return source


def filled(source: Metadata) -> Metadata:
    for number in range(source.generator_steps(0)):
        source.generator_step(number, {})
    return source


@pytest.mark.parametrize("values", [{}, {"match": "all_layers"}, {"match": "all_layers", "dropout": 0.3}])
def test_activations_come_near_those_that_were_drawn(inputs, values):
    source = made(inputs, iterations=40, rounds=1, **values)
    assert source.generator_steps(0) == 80
    distances = []
    for number in range(80):
        source.generator_step(number, {})
        distances.append(source.metrics()["generator/activation_distance"].item())
    assert distances[39] < 0.5 * distances[0] and distances[79] < 0.5 * distances[40]
    # the paper's distance, written slowly, for the last images before the last step changed them
    (image,), wanted = [source.pool.newest(16)[0]], source.wanted
    taps, total = source.teacher(image).taps, 0.0
    for tap, target in wanted.items():
        for row in range(16):
            total += float(((taps[tap][row].flatten() - target[row]) ** 2).mean()) / 16
    if not values.get("dropout"):
        assert total == pytest.approx(distances[79], rel=0.2)


def test_the_teacher_sees_the_classes_that_were_meant_in_balance(inputs):
    source = filled(made(inputs, iterations=60, rounds=3))
    image, logits = source.pool.newest(48)
    counts = logits.argmax(1).bincount(minlength=4)
    assert len(image) == 48 and counts.min() >= 8
    batch = source.batch(Position(0, 0, 0, 0.0), {})
    torch.testing.assert_close(batch.teacher.logits, source.teacher(batch.image).logits)


def test_the_first_round_is_kept_from_the_students(inputs):
    source = filled(made(inputs))
    assert len(source.pool) == 32 and source.samples(10).shape == (10, 1, 16, 16)
    pooled = source.pool.newest(32)[0]
    assert not any(torch.equal(sample, image) for sample in source.samples(16) for image in pooled)


def test_pixels_begin_as_published(inputs):
    source = made(inputs, generator_batch=256, iterations=1, learning_rate=1e-12)
    source.generator_step(0, {})
    assert source.pixels.mean().item() == pytest.approx(0.44, abs=0.01)
    assert source.pixels.std().item() == pytest.approx(0.29, abs=0.01)
    torch.testing.assert_close(source.held, (source.pixels.detach() - 0.5) / 0.25)


def test_other_statistics_are_refused(inputs, tmp_path):
    with pytest.raises(SpecError, match="/source/statistics: is required"):
        made(inputs, statistics=None)
    shutil.copytree(inputs / "inputs", tmp_path / "inputs")
    path = tmp_path / "inputs/statistics.safetensors"
    right = load_file(path)

    def refused(tensors):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        with pytest.raises(SpecError) as caught:
            made(tmp_path)
        assert {problem.pointer for problem in caught.value.problems} == {"/source/statistics"}
        return str(caught.value)

    assert "of 3 classes" in refused({k: v[:3] if v.ndim else v for k, v in right.items()})
    assert "no such tap" in refused({k.replace("conv2", "conv9"): v for k, v in right.items()})
    assert "input of the teacher's classifier" in refused({k: v for k, v in right.items() if k.startswith("conv2")})
    assert "numbers for 'conv2'" in refused(
        {k: v[..., 1:] if k[:5] == "conv2" and v.ndim else v for k, v in right.items()}
    )


def test_diverging_pixels_end_the_job(inputs):
    source = made(inputs, learning_rate=1e30, iterations=6)
    with pytest.raises(Diverged, match="round 0"):
        filled(source)


@pytest.mark.parametrize(
    ("share", "why"),
    [
        (0.0, "the teacher's outputs were the same for all images"),
        (1e-3, "the teacher predicted few of the classes"),
    ],
)
def test_images_with_nearly_the_same_teacher_outputs_end_the_job(inputs, share, why):
    source = made(inputs, iterations=40, rounds=4)
    teacher = source.teacher.network
    teacher.fc2.weight.data *= share
    teacher.fc2.bias.data[0] += 9
    with pytest.raises(Collapsed, match=f"by round 2: for 3 rounds {why}"):
        filled(source)
    shown = source.metrics()
    assert shown["generator/class_balance"] < 0.1 and shown["generator/class_share"] == 0.25


SPEC = {"source": {"name": "metadata", "statistics": "fil_1", "dropout": 0.2, "match": "all_layers"} | SMALL,
        "objectives": [{"name": "kd"}]}  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed():
    """The student of an uninterrupted run, filled by the first test."""
    return {}


def job_with(folder):
    job = job_of(folder, **SPEC)
    job.values["files"] = {"fil_1": "inputs/statistics.safetensors"}
    return job


@pytest.mark.parametrize("at", [1, 4, 11, 12, 14])
def test_killed_and_restored_bit_equal(inputs, tmp_path, at, undisturbed):
    if not undisturbed:
        shutil.copytree(inputs, tmp_path / "whole")
        run_whole(job_with(tmp_path / "whole"))
        undisturbed["student"] = student_of(tmp_path / "whole")
    shutil.copytree(inputs, tmp_path / "killed")
    run_killed(job_with(tmp_path / "killed"), at, tmp_path / "restored")
    assert same_bits(undisturbed["student"], student_of(tmp_path / "restored"))
