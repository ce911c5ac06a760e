"""The source `dataset`."""

from dataclasses import replace

import pytest
import torch

from worker.distillation.contract import InputContract
from worker.distillation.data.images import Images
from worker.distillation.distributed.ranks import Ranks
from worker.distillation.errors import SpecError
from worker.distillation.source import Position, SourceContext
from worker.distillation.sources.dataset import Dataset

CONTRACT = InputContract(1, 8, 8, (0.5,), (0.25,))
CPU = torch.device("cpu")


def images(count: int = 22) -> Images:
    image = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous() + 1
    return Images.of(image, torch.arange(count) % 4, ("a", "b", "c", "d"), CONTRACT)


def context(dataset: Images | None, batch_size: int = 4, seed: int = 0) -> SourceContext:
    return SourceContext(None, CONTRACT, 4, dataset, batch_size, None, None, (), seed, CPU, "classification")


def source(held: Images, **parameters: object) -> Dataset:
    made = Dataset(Dataset.Parameters(**parameters))
    made.build(context(held))
    return made


def epoch(made: Dataset, number: int) -> list:
    steps = made.steps_per_epoch()
    return [made.batch(Position(number, step, number * steps + step, 0.0), {}) for step in range(steps)]


def test_an_epoch_has_every_sample_once_with_its_label_and_index():
    held = images()
    made = source(held, drop_last=False)
    batches = epoch(made, 0)
    index = torch.cat([batch.fields["index"] for batch in batches])
    assert sorted(index.tolist()) == list(range(22)) and [len(batch.image) for batch in batches] == [4] * 5 + [2]
    for batch in batches:
        assert torch.equal(batch.fields["label"], held.label[batch.fields["index"]])
        expected = ((batch.fields["index"] + 1).view(-1, 1, 1, 1) / 255 - 0.5) / 0.25
        torch.testing.assert_close(batch.image, expected.expand(-1, 1, 8, 8), rtol=0, atol=1e-6)


def test_drop_last_gives_whole_batches_only():
    assert [len(batch.image) for batch in epoch(source(images()), 0)] == [4] * 5


def test_dataset_smaller_than_a_batch_is_one_batch():
    made = source(images(3))
    assert made.steps_per_epoch() == 1 and len(epoch(made, 0)[0].image) == 3


@pytest.mark.parametrize("augmentation", ["none", "standard", "shift"])
def test_batches_depend_on_seed_and_position_alone(augmentation: str):
    held = images()
    held = replace(held, image=torch.randint(256, held.image.shape, dtype=torch.uint8))
    straight = [batch for number in range(3) for batch in epoch(source(held, augmentation=augmentation), number)]
    torch.manual_seed(99)
    resumed = source(held, augmentation=augmentation)
    again = resumed.batch(Position(2, 3, 13, 0.5), {})
    assert torch.equal(again.image, straight[13].image) and torch.equal(
        again.fields["index"], straight[13].fields["index"]
    )
    other = Dataset(Dataset.Parameters(augmentation=augmentation))
    other.build(context(held, seed=1))
    assert not torch.equal(other.batch(Position(2, 3, 13, 0.5), {}).fields["index"], again.fields["index"])


def test_global_generator_is_left_alone():
    before = torch.get_rng_state()
    epoch(source(images(), augmentation="standard"), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_shift_never_mirrors_and_standard_does():
    ramp = torch.arange(8, dtype=torch.uint8).expand(64, 1, 8, 8).contiguous() * 10 + 100
    held = Images.of(ramp, torch.zeros(64, dtype=torch.int64), ("a", "b"), CONTRACT)

    def falls(augmentation: str) -> set[bool]:
        # with a padding of 1, every view still shows the columns 2 to 5
        made = source(held, augmentation=augmentation, padding=1)
        image = torch.cat([batch.image for batch in epoch(made, 0)])
        return set((image[:, 0, 4, 2] > image[:, 0, 4, 5]).tolist())

    assert falls("shift") == {False} and falls("standard") == {False, True}


def test_a_new_view_every_epoch():
    held = replace(images(4), image=torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8))
    made = source(held, augmentation="shift")
    views = [batch.image[batch.fields["index"].argsort()] for number in range(3) for batch in epoch(made, number)]
    assert not torch.equal(views[0], views[1]) and not torch.equal(views[1], views[2])


@pytest.mark.parametrize("sampler", ["shuffled", "per_class"])
def test_epochs_show_a_limited_number_of_views_in_turn_and_say_which(sampler: str):
    held = replace(images(), image=torch.randint(256, (22, 1, 8, 8), dtype=torch.uint8))
    made = source(held, augmentation="standard", views=3, sampler=sampler)
    whole = {}
    for batch in made.every_view():
        assert len(batch.image) == 4
        for number, image in zip(batch.view.tolist(), batch.image, strict=True):
            assert torch.equal(whole.setdefault(number, image), image)
    assert sorted(whole) == list(range(66)) and made.distinct_views() == 66
    for number in range(5):
        for batch in epoch(made, number):
            assert torch.equal(batch.view, 22 * (number % 3) + batch.fields["index"])
            assert all(
                torch.equal(whole[view], image) for view, image in zip(batch.view.tolist(), batch.image, strict=True)
            )
    assert not torch.equal(whole[0], whole[22]) and not torch.equal(whole[22], whole[44])


def test_ranks_share_out_all_views():
    held = replace(images(), image=torch.randint(256, (22, 1, 8, 8), dtype=torch.uint8))
    seen = []
    for rank in range(2):
        made = Dataset(Dataset.Parameters())
        made.build(replace(context(held, batch_size=8), ranks=Ranks(rank, 2)))
        seen += [set(batch.view.tolist()) for batch in made.every_view()]
    assert set().union(*seen) == set(range(22)) and all(len(each) == 4 for each in seen)


def test_without_augmentation_there_is_one_view_and_with_ever_new_ones_no_number():
    assert source(images()).distinct_views() == 22 and source(images(), views=3).distinct_views() == 22
    endless = source(images(), augmentation="shift")
    assert endless.distinct_views() is None and epoch(endless, 0)[0].view is None


def test_missing_dataset_and_unknown_sampler_are_refused():
    with pytest.raises(SpecError, match="needs a dataset"):
        Dataset().build(context(None))
    with pytest.raises(SpecError, match="pairs") as caught:
        Dataset().build(replace(context(images()), sampler="pairs"))
    assert [problem.pointer for problem in caught.value.problems] == ["/source"]


def asked_for(held: Images, **parameters: object) -> Dataset:
    made = Dataset(Dataset.Parameters(**parameters))
    made.build(replace(context(held), fields=("label", "second_view")))
    return made


def test_second_views_are_given_to_those_who_ask_and_change_nothing_else():
    held = replace(images(), image=torch.randint(256, (22, 1, 8, 8), dtype=torch.uint8))
    plain, both = epoch(source(held, augmentation="standard"), 1), epoch(asked_for(held, augmentation="standard"), 1)
    for one, other in zip(plain, both, strict=True):
        assert "second_view" not in one.fields and torch.equal(one.image, other.image)
        assert other.fields["second_view"].shape == one.image.shape
        assert not torch.equal(other.fields["second_view"], one.image)


def test_a_redrawn_second_view_without_augmentation_is_the_image():
    for batch in epoch(asked_for(images(), second_view="redrawn"), 0):
        assert torch.equal(batch.fields["second_view"], batch.image)


@pytest.mark.parametrize("sampler", [None, "per_class"])
def test_second_views_depend_on_seed_and_position_alone(sampler: str | None):
    held = replace(images(), image=torch.randint(256, (22, 1, 8, 8), dtype=torch.uint8))
    straight = [batch for number in range(2) for batch in epoch(asked_for(held, sampler=sampler), number)]
    made = asked_for(held, sampler=sampler)
    again = made.batch(Position(1, 2, 0, 0.5), {})
    assert torch.equal(again.fields["second_view"], straight[made.steps_per_epoch() + 2].fields["second_view"])


@pytest.mark.parametrize("sampler", ["shuffled", "per_class"])
def test_privileged_images_are_divided_and_augmented_like_the_images(sampler: str):
    """With privileged images of the same bytes, and a contract that only shifts and scales them, each row predicts
    its partner."""
    noise = torch.randint(256, (22, 1, 8, 8), dtype=torch.uint8)
    other = replace(images(), image=noise, contract=InputContract(1, 8, 8, (0.0,), (2.0,)))
    held = replace(images(), image=noise, privileged=other)
    parts = []
    for rank in range(2):
        made = Dataset(Dataset.Parameters(augmentation="standard", teacher_reads="privileged", sampler=sampler))
        made.build(replace(context(held, batch_size=8), ranks=Ranks(rank, 2)))
        parts.append(made.batch(Position(1, 0, 2, 0.0), {}))
    for batch in parts:
        torch.testing.assert_close(batch.fields["privileged"], (batch.image * 0.25 + 0.5) / 2)
    assert [len(batch.fields["privileged"]) for batch in parts] == [4, 4]
    assert len(torch.cat([batch.fields["index"] for batch in parts]).unique()) >= 7


def test_a_part_of_a_split_keeps_its_privileged_images():
    other = replace(images(), image=255 - images().image)
    held = replace(images(), privileged=other)
    train, held_out = held.split(0.25, seed=3)
    for part in (train, held_out):
        assert part.privileged is not None
        assert torch.equal(part.privileged.image, 255 - part.image)
        assert torch.equal(part.privileged.index, part.index)


@pytest.mark.parametrize("parameters", [{"augmentation": "consistent"}, {"mixup": 0.2}, {"cutmix": 1.0}])
def test_images_are_mixed_only_for_objectives_that_do_not_read_labels(parameters: dict[str, object]):
    held = replace(images(), image=torch.randint(256, (22, 1, 8, 8), dtype=torch.uint8))
    made = source(held, **parameters)
    first = epoch(made, 0)
    assert not torch.equal(first[0].image, epoch(source(held), 0)[0].image)
    assert torch.equal(epoch(source(held, **parameters), 0)[3].image, first[3].image)
    for fields in (("label",), ("index", "second_view")):
        refused = Dataset(Dataset.Parameters(**parameters))
        with pytest.raises(SpecError, match="mixes images"):
            refused.build(replace(context(held), fields=fields))
    with pytest.raises(SpecError, match="several devices"):
        Dataset(Dataset.Parameters(**parameters)).build(replace(context(held), ranks=Ranks(0, 2)))


def test_ranks_see_their_part_of_the_same_random_views():
    held = replace(images(), image=torch.randint(256, (22, 1, 8, 8), dtype=torch.uint8))
    chosen = {"augmentation": "resized_crop", "policy": "trivial_augment", "erasing": 0.5}
    whole, parts = epoch(source(held, **chosen), 1), []
    for rank in range(2):
        made = Dataset(Dataset.Parameters(**chosen))
        made.build(replace(context(held), ranks=Ranks(rank, 2)))
        parts.append(epoch(made, 1))
    for number, batch in enumerate(whole):
        assert torch.equal(torch.cat([parts[0][number].image, parts[1][number].image]), batch.image)


def test_the_teacher_sees_the_same_crop_of_its_own_image():
    noise = torch.randint(256, (22, 1, 8, 8), dtype=torch.uint8)
    held = replace(images(), image=noise, privileged=replace(images(), image=noise))
    made = source(held, augmentation="consistent", teacher_reads="privileged")
    for batch in epoch(made, 0):
        assert torch.equal(batch.fields["privileged"], batch.image)
