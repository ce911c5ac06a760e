"""The sources whose images carry no label and are only labelled by the teacher: `noise` and `substitute`."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.worker.distillation.killed_runs import job_of, run_killed, run_whole, same_bits, student_of
from worker.distillation.contract import InputContract
from worker.distillation.data.images import Images
from worker.distillation.errors import Collapsed, SpecError
from worker.distillation.introspection.taps import Tapped
from worker.distillation.source import Position, SourceContext
from worker.distillation.sources.noise import Noise
from worker.distillation.sources.substitute import Substitute

CONTRACT = InputContract(2, 6, 10, (0.5, 0.4), (0.25, 0.2))
CPU = torch.device("cpu")


@pytest.fixture
def teacher() -> Tapped:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(120, 3))
    return Tapped(network.eval().requires_grad_(False), torch.zeros(2, 2, 6, 10))


def images(count: int = 11, label: int = 999) -> Images:
    draw = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (count, 2, 6, 10), generator=draw, dtype=torch.uint8)
    return Images.of(image, torch.full((count,), label), ("never read",), CONTRACT)


def context(teacher: Tapped, held: Images | None = None, **changes) -> SourceContext:
    plain = SourceContext(teacher, CONTRACT, 3, held, 4, None, None, (), 7, CPU, "classification")
    return replace(plain, **changes)


def batches(source, count: int = 6) -> list:
    steps = source.steps_per_epoch()
    return [source.batch(Position(number // steps, number % steps, number, 0.0), {}) for number in range(count)]


def made(kind: type, teacher: Tapped, held: Images | None = None, changes: dict | None = None, **parameters):
    source = kind(kind.Parameters(**parameters))
    source.build(context(teacher, held, **(changes or {})))
    return source


def test_noise_is_standard_normal_and_never_the_same(teacher):
    drawn = batches(made(Noise, teacher, changes={"batch_size": 64}), 20)
    whole = torch.cat([batch.image for batch in drawn])
    assert whole.shape == (1280, 2, 6, 10)
    # 153,600 numbers: the standard error of a mean is 0.0026, of a variance 0.0036
    assert abs(whole.mean()) < 0.013 and abs(whole.var() - 1) < 0.018
    assert abs((whole**4).mean() - 3) < 0.15
    assert len(whole.flatten(1).unique(dim=0)) == len(whole)


@pytest.mark.parametrize("kind", [Noise, Substitute])
def test_a_batch_depends_on_the_seed_and_its_place_alone(kind, teacher):
    held = images() if kind is Substitute else None
    one = batches(made(kind, teacher, held))
    torch.manual_seed(99)
    again = made(kind, teacher, held)
    for number in (5, 2):
        steps = again.steps_per_epoch()
        batch = again.batch(Position(number // steps, number % steps, number, 0.0), {})
        assert torch.equal(batch.image, one[number].image)
    other = batches(made(kind, teacher, held, {"seed": 8}))
    assert not torch.equal(one[0].image, other[0].image)


@pytest.mark.parametrize("kind", [Noise, Substitute])
def test_labels_are_the_teachers_predicted_classes_if_required(kind, teacher):
    held = images() if kind is Substitute else None
    for batch in batches(made(kind, teacher, held)):
        assert "label" not in batch.fields and batch.teacher is None
    for batch in batches(made(kind, teacher, held, labels="teacher")):
        logits = teacher.network(batch.image)
        assert torch.equal(batch.fields["label"], logits.argmax(1)) and batch.fields["label"].dtype == torch.int64
        torch.testing.assert_close(batch.teacher.logits, logits)
    assert "label" in kind(kind.Parameters(labels="teacher")).provided
    assert "label" not in kind(kind.Parameters()).provided


def test_every_image_of_a_substitute_comes_once_an_epoch_under_its_index(teacher):
    held = images()
    source = made(Substitute, teacher, held, drop_last=False)
    assert source.steps_per_epoch() == 3
    index = torch.cat([batch.fields["index"] for batch in batches(source, 3)])
    assert sorted(index.tolist()) == list(range(11))
    for batch in batches(source, 3):
        torch.testing.assert_close(batch.image, held.normalise(held.image[batch.fields["index"]]))


def test_views_of_a_substitute_move_whole_images(teacher):
    held = images()
    moved = made(Substitute, teacher, held, augmentation="shift", padding=2)
    for batch in batches(moved, 2):
        for image, index in zip(batch.image, batch.fields["index"], strict=True):
            bytes_ = (image * torch.tensor([0.25, 0.2]).view(2, 1, 1) + torch.tensor([0.5, 0.4]).view(2, 1, 1)) * 255
            padded = nn.functional.pad(held.image[index].float(), (2, 2, 2, 2))
            crops = padded.unfold(1, 6, 1).unfold(2, 10, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
            assert (crops - bytes_).abs().amax(dim=(1, 2, 3)).min() < 0.01


def test_no_images_are_refused(teacher):
    with pytest.raises(SpecError, match="at least one image"):
        made(Substitute, teacher, None)


@pytest.mark.parametrize("kind", [Noise, Substitute])
def test_ranks_share_a_batch_that_does_not_depend_on_them(kind, teacher):
    held = images() if kind is Substitute else None
    whole = batches(made(kind, teacher, held), 2)
    parts = []
    for rank in range(2):
        ranks = SimpleNamespace(size=2, rank=rank, leads=rank == 0)
        parts.append(batches(made(kind, teacher, held, {"ranks": ranks}), 2))
    for batch, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(batch.image, torch.cat([first.image, second.image]))
        assert first.division.sizes == (2, 2)


SPECS = {
    "noise": {"source": {"name": "noise", "labels": "teacher"}, "objectives": [{"name": "cross_entropy"}, {"name": "kd"}]},
    "substitute": {"source": {"name": "substitute", "augmentation": "standard"}, "objectives": [{"name": "kd"}]},
    "substitute with a bank": {
        "source": {"name": "substitute", "labels": "teacher"},
        "objectives": [{"name": "kd"}, {"name": "crd", "negatives": 8, "weight": 0.1}],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed():
    """Students of uninterrupted runs, by name."""
    return {}


def job_on(folder, name):
    job = job_of(folder, **SPECS[name])
    if name != "noise":
        job.values["dataset"] = "inputs/dataset.safetensors"
    return job


@pytest.mark.parametrize("at", [1, 4, 5])
@pytest.mark.parametrize("name", SPECS)
def test_killed_and_restored_bit_equal(name, at, engine_inputs, tmp_path, undisturbed):
    if name not in undisturbed:
        shutil.copytree(engine_inputs, tmp_path / "whole")
        run_whole(job_on(tmp_path / "whole", name))
        undisturbed[name] = student_of(tmp_path / "whole")
    shutil.copytree(engine_inputs, tmp_path / "killed")
    run_killed(job_on(tmp_path / "killed", name), at, tmp_path / "restored")
    assert same_bits(undisturbed[name], student_of(tmp_path / "restored"))


def test_labels_of_a_substitute_are_never_read(engine_inputs, tmp_path):
    """Labels of classes that the teacher does not have change nothing."""
    from safetensors.torch import load_file, save_file

    students = []
    for label in (0, 77):
        folder = tmp_path / str(label)
        shutil.copytree(engine_inputs, folder)
        path = folder / "inputs/dataset.safetensors"
        tensors = load_file(path)
        save_file(tensors | {"train.label": torch.full_like(tensors["train.label"], label)}, path)
        run_whole(job_on(folder, "substitute with a bank"))
        students.append(student_of(folder))
    assert same_bits(*students)


def test_nothing_is_held_back_of_a_substitute_to_measure_by(engine_inputs, tmp_path):
    shutil.copytree(engine_inputs, tmp_path / "job")
    job = job_on(tmp_path / "job", "substitute")
    job.spec["training"]["validation_fraction"] = 0.25
    with pytest.raises(SpecError, match="/training/validation_fraction"):
        run_whole(job)


@pytest.mark.parametrize("source", ["noise", "dafl"])
def test_a_teacher_with_the_same_outputs_for_all_images_is_found_at_the_end_at_the_latest(
    source, engine_inputs, tmp_path
):
    folder = shutil.copytree(engine_inputs, tmp_path / "job")
    path = folder / "inputs" / "teacher.safetensors"
    planted = load_file(path)
    save_file(planted | {"fc2.weight": torch.zeros_like(planted["fc2.weight"])}, path)
    with pytest.raises(
        Collapsed, match="the teacher gives the same prediction for 1024 synthetic images, although the images differ"
    ):
        run_whole(job_of(folder, source={"name": source}, objectives=[{"name": "kd"}]))
