"""Batches that are decoded in threads are a function of seed, epoch and step alone."""

from collections.abc import Iterator

import pytest
import torch

from tests.worker.distillation.data.photos import CONTRACT, loaded
from worker.distillation.data import decoding_threads
from worker.distillation.data.decoding_threads import Ahead
from worker.distillation.data.images import Images
from worker.distillation.source import Position, SourceContext
from worker.distillation.sources.dataset import Dataset
from worker.distillation.step import Batch

EVERYTHING = {
    "augmentation": "resized_crop", "policy": "rand_augment", "colour_jitter": 0.4, "erasing": 0.5, "mixup": 0.2, "cutmix": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return loaded(tmp_path_factory.mktemp("photos"))


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    yield
    decoding_threads.threads.cache_clear()


def source(held: Images, **parameters: object) -> Dataset:
    made = Dataset(Dataset.Parameters(**parameters))  # type: ignore[arg-type]
    made.build(SourceContext(None, CONTRACT, 2, held, 4, None, None, (), 5, torch.device("cpu"), "classification"))
    return made


def batch(made: Dataset, epoch: int, step: int) -> Batch:
    return made.batch(Position(epoch, step, 3 * epoch + step, 0.0), {})


@pytest.mark.parametrize(
    "parameters", [{}, EVERYTHING, {"augmentation": "standard"}], ids=["plain", "everything", "standard"]
)
def test_one_and_four_threads_and_a_resume_give_the_same_bits(
    held: Images, parameters: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [(epoch, step) for epoch in range(2) for step in range(3)]
    runs = []
    for count in (1, 4):
        decoding_threads.threads.cache_clear()
        monkeypatch.setattr(decoding_threads, "usual", lambda count=count: count)
        made = source(held, **parameters)
        runs.append([batch(made, *place).image for place in places])
        assert decoding_threads.threads()._max_workers == count
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))
    resumed = source(held, **parameters)
    assert torch.equal(batch(resumed, 1, 1).image, runs[0][4])
    assert torch.equal(batch(resumed, 1, 2).image, runs[0][5])
    assert not torch.equal(runs[0][0], runs[0][3])


def test_some_batches_are_begun_before_they_are_taken() -> None:
    begun: list[tuple[int, int]] = []

    def make(epoch: int, step: int) -> tuple[int, int]:
        begun.append((epoch, step))
        return epoch, step

    ahead = Ahead(make, 3, count=2)
    assert ahead.take(0, 1) == (0, 1) and begun == [(0, 1), (0, 2), (1, 0)]
    assert ahead.take(0, 2) == (0, 2) and begun[3:] == [(1, 1)]
    assert ahead.take(5, 0) == (5, 0) and begun[4:] == [(5, 0), (5, 1), (5, 2)]
    now = Ahead(make, 3, count=0)
    assert now.take(0, 2) == (0, 2) and begun[7:] == [(0, 2)]


def test_an_error_in_a_thread_is_raised_where_the_batch_is_taken() -> None:
    def fails(number: int) -> None:
        if number == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        [each.result() for each in decoding_threads.begin(fails, 6)]
