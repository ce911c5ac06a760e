import math
import random

import pytest
import torch

from worker.distillation.errors import CheckpointError
from worker.distillation.trainer.checkpoint import Checkpoints, decode, encode

STATE = {
    "weights": {"a": torch.randn(3, 2), "half": torch.ones(2, dtype=torch.bfloat16), "empty": torch.zeros(0)},
    3: [1, 2.5, None, True, "word", (1, (2, 3))],
    "strange": [math.inf, -0.1, 10**30],
    "scalar": torch.tensor(7),
    "mask": torch.tensor([True, False]),
}


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(equal, one, other))
    return one == other and type(one) is type(other)


def test_a_nested_state_is_read_back_unchanged(tmp_path):
    path = tmp_path / "part"
    path.write_bytes(encode(STATE))
    assert equal(decode(path), STATE)


def test_equal_states_have_equal_bytes():
    assert encode(STATE) == encode(STATE)


def test_pythons_random_state_is_restored(tmp_path):
    state = random.getstate()
    (tmp_path / "part").write_bytes(encode(state))
    drawn = random.random()
    random.setstate(decode(tmp_path / "part"))
    assert random.random() == drawn


def test_objects_are_refused():
    with pytest.raises(TypeError, match="object"):
        encode({"x": object()})


def test_later_training_does_not_change_a_snapshot(tmp_path):
    manifests = []
    checkpoints = Checkpoints(tmp_path, manifests.append)
    weight = torch.zeros(2)
    checkpoints.save(1, {"network": {"w": weight}})
    weight += 1
    checkpoints.flush()
    assert torch.equal(Checkpoints(tmp_path).load(manifests[0])["network"]["w"], torch.zeros(2))


def test_an_unchanged_part_is_written_once(tmp_path):
    manifests = []
    checkpoints = Checkpoints(tmp_path, manifests.append)
    for step in range(2):
        checkpoints.save(step, {"same": torch.ones(4), "other": step}, wait=True)
    first, second = (manifest["parts"] for manifest in manifests)
    assert first["same"] == second["same"]
    assert first["other"] != second["other"]


def test_old_parts_are_deleted_and_frozen_ones_kept(tmp_path):
    manifests = []
    checkpoints = Checkpoints(tmp_path, manifests.append)
    checkpoints.freeze("stage/first/student", torch.arange(3))
    for step in range(6):
        checkpoints.save(step, {"step": step}, wait=True)
    parts = {path.name for path in tmp_path.iterdir()}
    assert manifests[0]["parts"]["step"]["sha256"] not in parts
    for manifest in manifests[-2:]:
        assert {entry["sha256"] for entry in manifest["parts"].values()} <= parts
    restored = Checkpoints(tmp_path)
    restored.load(manifests[-1])
    assert torch.equal(restored.thaw("stage/first/student"), torch.arange(3))


def test_a_part_is_not_deleted_while_it_is_frozen(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    write = checkpoints._write

    def write_while_another_checkpoint_ends(content):
        entry = write(content)
        monkeypatch.undo()
        checkpoints.save(1, {"x": 1})
        checkpoints._writer.join(timeout=0.3)
        return entry

    monkeypatch.setattr(checkpoints, "_write", write_while_another_checkpoint_ends)
    checkpoints.freeze("stage/first/student", torch.arange(3))
    checkpoints.flush()
    assert torch.equal(checkpoints.thaw("stage/first/student"), torch.arange(3))


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_part_is_detected(tmp_path, damage):
    manifests = []
    Checkpoints(tmp_path, manifests.append).save(1, {"network": torch.ones(8)}, wait=True)
    path = tmp_path / manifests[0]["parts"]["network"]["sha256"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    {
        "truncate": lambda: path.write_bytes(content[:-5]),
        "flip": lambda: path.write_bytes(content),
        "remove": path.unlink,
    }[damage]()
    with pytest.raises(CheckpointError, match=r"missing|damaged"):
        Checkpoints(tmp_path).load(manifests[0])


def test_a_failed_write_raises(tmp_path):
    def fail(manifest):
        raise OSError("the disk is full")

    checkpoints = Checkpoints(tmp_path, fail)
    checkpoints.save(1, {"x": 1})
    with pytest.raises(CheckpointError, match="the disk is full"):
        checkpoints.flush()
