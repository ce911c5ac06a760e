"""The image pool against a list that keeps the newest."""

import pytest
import torch

from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError
from worker.distillation.synthesis import pool as pool_module
from worker.distillation.synthesis.pool import ImagePool, pool_within
from worker.distillation.trainer.checkpoint import encode, snapshot

CPU = torch.device("cpu")
SHAPE, CLASSES = (1, 2, 3), 4


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Shards of 3 images of 24 bytes and 16 bytes of logits."""
    monkeypatch.setattr(pool_module, "SHARD_BYTES", 3 * 40)


def numbered(start: int, count: int):
    """Images and logits that hold their own number."""
    number = torch.arange(start, start + count, dtype=torch.float32)
    return number[:, None, None, None].expand(count, *SHAPE), number[:, None].expand(count, CLASSES)


def pool_of(bytes_limit: int, **given) -> ImagePool:
    return pool_within(bytes_limit=bytes_limit, classes=CLASSES, device=CPU, **given)


def filled(capacity: int, *batches: int, dtype=torch.float32) -> ImagePool:
    pool = ImagePool(capacity, SHAPE, CLASSES, dtype, CPU)
    for batch in batches:
        pool.add(*numbered(pool.written, batch))
    return pool


@pytest.mark.parametrize("batches", [(2,), (7,), (2, 3, 4), (4, 4, 4, 4, 4), (7, 7, 3)])
def test_holds_the_newest(batches):
    pool = filled(7, *batches)
    newest = list(range(sum(batches)))[-7:]
    image, logits = pool.newest(100)
    assert len(pool) == len(newest)
    assert image[:, 0, 0, 0].tolist() == newest
    assert logits[:, 3].tolist() == newest


def test_draws_every_image_about_equally_often_and_with_its_own_logits():
    pool = filled(7, 5, 5)
    image, logits = pool.draw(7_000, torch.Generator().manual_seed(0))
    assert torch.equal(image[:, 0, 1, 2], logits[:, 1])
    values, counts = logits[:, 0].unique(return_counts=True)
    assert values.tolist() == [3, 4, 5, 6, 7, 8, 9]
    assert counts.min() > 850
    assert counts.max() < 1150


def test_restored_state_continues_equally():
    pool, restored = filled(7, 4, 4), filled(7, 5)
    restored.load_state_dict(snapshot(pool.state_dict()))
    for one in (pool, restored):
        one.add(*numbered(100, 5))
    assert restored.written == pool.written
    for mine, its in zip(restored.newest(7), pool.newest(7), strict=True):
        assert torch.equal(mine, its)


@pytest.mark.parametrize(("dtype", "other"), [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_draws_are_equal_after_a_restore_on_hardware_of_another_precision(dtype, other):
    contract = InputContract(*SHAPE, (0.0,), (1.0,))
    pool, restored = (pool_of(400, images=30, least=4, contract=contract, dtype=each) for each in (dtype, other))
    assert pool.capacity != restored.capacity
    for start in (0, 5, 10):
        pool.add(*numbered(start, 5))
    restored.load_state_dict(snapshot(pool.state_dict()))
    for one in (pool, restored):
        one.add(*numbered(100, 5))
    draws = [one.draw(20, torch.Generator().manual_seed(0)) for one in (pool, restored)]
    assert all(torch.equal(mine, its) for mine, its in zip(*draws, strict=True))


def test_places_in_any_order_are_read_in_that_order():
    pool = filled(9, 9)
    places = torch.tensor([8, 0, 4, 4, 3, 8, 1, 0])
    image, logits = pool.read(places)
    assert image[:, 0, 1, 1].tolist() == places.tolist() == logits[:, 2].tolist()


def test_unchanged_shards_keep_their_bytes():
    pool = filled(9, 9)
    before = {key: encode(part) for key, part in pool.state_dict().items()}
    pool.add(*numbered(50, 2))
    changed = {key for key, part in pool.state_dict().items() if encode(part) != before[key]}
    assert changed == {"written", "shard.0000"}
    assert before.keys() == {"written", "layout", "shard.0000", "shard.0001", "shard.0002"}


def test_low_precision_rounds_images_and_not_logits():
    pool = ImagePool(2, SHAPE, CLASSES, torch.bfloat16, CPU)
    third = torch.full((1, *SHAPE), 1 / 3), torch.full((1, CLASSES), 1 / 3)
    pool.add(*third)
    image, logits = pool.newest(1)
    assert torch.equal(image, third[0].bfloat16().float())
    assert torch.equal(logits, third[1])


def test_capacity_follows_the_byte_limit():
    contract = InputContract(1, 2, 3, (0.0,), (1.0,))
    assert pool_of(400, images=1000, least=8, contract=contract, dtype=torch.float32).capacity == 10
    assert pool_of(280, images=1000, least=8, contract=contract, dtype=torch.bfloat16).capacity == 10
    assert pool_of(4000, images=30, least=8, contract=contract, dtype=torch.float32).capacity == 30
    with pytest.raises(SpecError, match="pool_megabytes"):
        pool_of(300, images=1000, least=8, contract=contract, dtype=torch.float32)
