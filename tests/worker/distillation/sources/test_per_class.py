"""The source `dataset` with the sampler `per_class`."""

import pytest
import torch

from worker.distillation.contract import InputContract
from worker.distillation.data.images import Images
from worker.distillation.errors import SpecError
from worker.distillation.source import Position, SourceContext
from worker.distillation.sources.dataset import Dataset

CONTRACT = InputContract(1, 8, 8, (0.5,), (0.25,))
NAMES = ("ant", "bee", "cow", "dog")


def images(label: torch.Tensor) -> Images:
    image = torch.randint(256, (len(label), 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Images.of(image, label, NAMES, CONTRACT)


def context(label: torch.Tensor, sampler: str | None, batch_size: int = 8, seed: int = 0) -> SourceContext:
    return SourceContext(
        None, CONTRACT, 4, images(label), batch_size, None, sampler, (), seed, torch.device("cpu"), "classification"
    )


LABEL = torch.arange(22) % 4


def source(
    sampler: str | None = "per_class", label: torch.Tensor = LABEL, batch_size: int = 8, **parameters
) -> Dataset:
    made = Dataset(Dataset.Parameters(**parameters))
    made.build(context(label, sampler, batch_size))
    return made


def epoch(made: Dataset, number: int) -> list:
    steps = made.steps_per_epoch()
    return [made.batch(Position(number, step, number * steps + step, 0.0), {}) for step in range(steps)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_batch_is_anchors_and_then_others_of_their_classes(count):
    made = source(same_class_images=count, drop_last=False)
    anchors = 8 // (1 + count)
    seen = []
    for batch in epoch(made, 0):
        here = len(batch.image) // (1 + count)
        assert here <= anchors
        rows = batch.fields["index"].view(1 + count, here)
        labels = batch.fields["label"].view(1 + count, here)
        assert (labels == labels[0]).all()
        assert not (rows[1:] == rows[0]).any()
        assert torch.equal(batch.fields["label"], LABEL[batch.fields["index"]])
        seen += rows[0].tolist()
    assert sorted(seen) == list(range(22))  # every image is an anchor once an epoch


def test_demanded_by_objectives_or_asked_for_alone():
    alone = Dataset(Dataset.Parameters(sampler="per_class", same_class_images=1))
    alone.build(context(LABEL, None))
    demanded = source(same_class_images=1)
    pairs = zip(epoch(alone, 0), epoch(demanded, 0), strict=True)
    assert all(torch.equal(one.fields["index"], other.fields["index"]) for one, other in pairs)
    assert len(epoch(source(sampler=None), 0)) == 2  # shuffled: 22 images, 8 a batch


@pytest.mark.parametrize("augmentation", ["none", "standard"])
def test_batches_depend_on_seed_and_position_alone(augmentation):
    straight = [batch for number in range(3) for batch in epoch(source(augmentation=augmentation), number)]
    before = torch.manual_seed(99).get_state()
    again = source(augmentation=augmentation).batch(Position(2, 3, 0, 0.5), {})
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.image, straight[2 * 11 + 3].image)
    made = Dataset(Dataset.Parameters(augmentation=augmentation))
    made.build(context(LABEL, "per_class", seed=1))
    assert not torch.equal(made.batch(Position(2, 3, 0, 0.5), {}).fields["index"], again.fields["index"])
    assert not torch.equal(straight[0].fields["index"], straight[11].fields["index"])  # another epoch


def test_an_image_that_is_drawn_twice_has_two_views():
    made = source(label=torch.zeros(2, dtype=torch.int64), batch_size=8, same_class_images=3, augmentation="standard")
    differ = 0
    for number in range(10):
        batch = epoch(made, number)[0]
        twice = [batch.image[batch.fields["index"] == index] for index in (0, 1)]
        differ += sum(not torch.equal(view, views[0]) for views in twice for view in views[1:])
    assert differ > 30  # of 60; views may agree by chance


def refusal(make) -> list:
    with pytest.raises(SpecError) as caught:
        make()
    return [(problem.pointer, problem.message) for problem in caught.value.problems]


def test_classes_with_a_single_image_are_refused_by_name():
    label = torch.tensor([0, 0, 1, 2, 2, 3])
    ((pointer, message),) = refusal(lambda: source(label=label))
    assert pointer == "/dataset"
    assert "bee, dog" in message and "ant" not in message
    source(sampler=None, label=label)  # no error if nothing needs others of a class


def test_too_small_a_batch_and_contradictions_are_refused():
    assert [at for at, _ in refusal(lambda: source(batch_size=3))] == ["/training/batch_size"]
    assert [at for at, _ in refusal(lambda: source("pairs"))] == ["/source"]

    def contradiction():
        made = Dataset(Dataset.Parameters(sampler="shuffled"))
        made.build(context(LABEL, "per_class"))

    assert [at for at, _ in refusal(contradiction)] == ["/source/sampler"]
