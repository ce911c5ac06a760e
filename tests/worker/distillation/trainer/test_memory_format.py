"""Networks read every batch with the channels last, whatever its source."""

import shutil

import pytest
import torch
from torch import nn

from tests.worker.distillation.killed_runs import INPUT, job_of, run_whole
from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.data.images import Images
from worker.distillation.step import Batch
from worker.distillation.trainer.stage_run import StageRun


@pytest.fixture
def seen(monkeypatch):
    """Whether each input (B, C, H, W) of a convolution is in the format channels last."""
    formats = []
    before = nn.Conv2d.forward

    def looking(layer, image):
        if image.shape[1] > 1:
            formats.append(image.is_contiguous(memory_format=torch.channels_last))
        return before(layer, image)

    monkeypatch.setattr(nn.Conv2d, "forward", looking)
    return formats


@pytest.mark.parametrize(
    "source", [{"name": "dataset", "augmentation": "none"}, {"name": "dataset"}, {"name": "noise"}]
)
def test_every_step_reads_channels_last(source, engine_inputs, tmp_path, monkeypatch):
    converted, used = [], []
    convert, update = Batch.channels_last, StageRun._update

    def converting(batch):
        converted.append(convert(batch))
        return converted[-1]

    def updating(run, batch, position):
        used.append(batch)
        update(run, batch, position)

    monkeypatch.setattr(Batch, "channels_last", converting)
    monkeypatch.setattr(StageRun, "_update", updating)
    shutil.copytree(engine_inputs, tmp_path / "job")
    run_whole(job_of(tmp_path / "job", source=source, objectives=[{"name": "kd"}], training={"steps": 2}))
    assert len(used) == 2 and all(one is other for one, other in zip(used, converted, strict=True))


def test_images_of_a_dataset_and_of_a_batch_are_channels_last():
    contract = read_contract(INPUT | {"channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3})
    image = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8)
    images = Images.of(image, torch.zeros(4, dtype=torch.int64), ("one",), contract)
    batch = Batch(torch.rand(4, 3, 16, 16), {"privileged": torch.rand(4, 3, 8, 8), "label": torch.zeros(4)})
    changed = batch.channels_last()
    for each in (images.normalise(image), changed.image, changed.fields["privileged"]):
        assert each.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(changed.image, batch.image) and changed.fields["label"] is batch.fields["label"]


def test_convolutions_keep_the_format(seen):
    network = networks.build(
        "resnet8_cifar", 4, read_contract(INPUT | {"channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3}), {}
    )
    network(Batch(torch.rand(2, 3, 16, 16)).channels_last().image)
    assert seen and all(seen)
