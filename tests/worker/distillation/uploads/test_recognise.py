"""What a teacher leaves open is found with labelled images; what is said is kept, and doubted if it is clearly worse."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.contract_check.comparison import Measured
from worker.distillation.contract_check.normalisations import Normalisation
from worker.distillation.errors import SpecError, UploadError
from worker.distillation.recovery.geometry import geometries
from worker.distillation.recovery.reading import Reading
from worker.distillation.recovery.recovered import Recovered, Scored
from worker.distillation.uploads import recognise
from worker.distillation.uploads.found_network import Said
from worker.distillation.uploads.inspect_upload import inspect
from worker.distillation.uploads.labelled_images import LabelledImages
from worker.distillation.uploads.measured_networks import MeasuredNetwork

INPUT = {"channels": 1, "height": 16, "width": 16, "mean": [0.5], "std": [0.5]}
WRONG = INPUT | {"mean": [0.0], "std": [1 / 255]}
NAMES = ["ant", "bee", "cat", "dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images whose class is told by their brightness, and tanh networks with average pooling that were trained on them."""
    folder = tmp_path_factory.mktemp("bright")
    (folder / "output").mkdir()
    draw = torch.Generator().manual_seed(1)
    label = torch.arange(400) % 4
    noise = torch.randint(0, 30, (400, 1, 16, 16), generator=draw)
    image = (noise + 20 + 60 * label.view(-1, 1, 1, 1)).to(torch.uint8)
    save_file({"train.image": image, "train.label": label}, folder / "data", {"class_names": json.dumps(NAMES)})
    with torch.random.fork_rng():
        torch.manual_seed(2)
        options = {"activation": "tanh", "pooling": "average"}
        network = networks.build("lenet", 4, read_contract(INPUT), options)
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(150):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network((image.float() / 255 - 0.5) / 0.5), label).backward()
            optimizer.step()
    torch.save(network.state_dict(), folder / "upload")
    return folder


def found(folder, **said):
    job = {"kind": "teacher", "upload": "upload", "teacher": {"network": None, **said}, "dataset": "data"}
    return inspect(job | {"recognition_seconds": 120}, folder)["findings"]


def test_network_options_input_and_classes_are_found_and_measured(folder):
    findings = found(folder)
    assert (findings["network"], findings["classes"], findings["class_names"]) == ("lenet", 4, NAMES)
    assert findings["input"]["height"] == 16
    recognised = findings["recognised"]
    assert recognised["accuracy"] > 0.95 and (recognised["images"], recognised["split"]) == (400, "train")
    taken, *ties = recognised["readings"]
    assert taken["margin"] == 0 and taken["network"] == "lenet" and taken["options"] == findings["options"]
    assert all(row["sigma"] < 3 for row in ties)


def test_grey_images_that_were_sent_in_colour_are_read_as_grey(folder, tmp_path):
    (tmp_path / "output").mkdir()
    (tmp_path / "upload").symlink_to(folder / "upload")
    held = load_file(folder / "data")
    save_file(held | {"train.image": held["train.image"].expand(-1, 3, -1, -1).contiguous()}, tmp_path / "data")
    findings = found(tmp_path)
    assert findings["input"]["channels"] == 1 and findings["recognised"]["accuracy"] > 0.95


def test_cross_entropy_tells_the_scale_of_the_pixels_where_accuracy_does_not(tmp_path):
    """A network without biases has the same accuracy under every scale."""
    (tmp_path / "output").mkdir()
    draw = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (400, 1, 2, 2), generator=draw, dtype=torch.uint8)
    weight = torch.randn(4, 4, generator=draw)
    noise = 0.4 * torch.randn(400, 4, generator=draw)
    label = (image.flatten(1) / 255 @ weight.T + noise).argmax(1)
    save_file({"train.image": image, "train.label": label}, tmp_path / "data", {"class_names": json.dumps(NAMES)})
    for scale, taken, tied in ((1, "0 to 1", "0 to 255"), (255, "0 to 255", "0 to 1")):
        torch.save({"weight": 5 * weight / scale}, tmp_path / "upload")
        findings = found(tmp_path)
        assert findings["input"]["std"] == [1 / scale] and findings["input"]["mean"] == [0.0]
        first, *others = findings["recognised"]["readings"]
        assert first["normalisation"] == taken
        assert any(row["normalisation"] == tied and row["margin"] == 0 for row in others)


def test_the_input_of_a_named_network_is_found(folder):
    options = {"activation": "tanh", "pooling": "average"}
    findings = found(folder, network="lenet", classes=4, options=options)
    assert findings["options"] == options and findings["recognised"]["accuracy"] > 0.95
    assert findings["warnings"] == []


def test_an_input_that_is_said_is_kept_and_doubted(folder):
    options = {"activation": "tanh", "pooling": "average"}
    said = {"network": "lenet", "classes": 4, "options": options, "input": WRONG}
    findings = found(folder, **said)
    assert findings["input"] == WRONG
    assert any("leave `input` out to have them found" in words for words in findings["warnings"])
    assert found(folder, **said | {"input": INPUT})["recognised"]["readings"][0]["normalisation"] == "declared"


def test_class_names_of_another_order_are_matched(folder):
    assert found(folder)["recognised"]["accuracy"] > 0.95
    turned = found(
        folder, network="lenet", options={"activation": "tanh", "pooling": "average"}, class_names=NAMES[::-1]
    )
    assert turned["recognised"]["accuracy"] < 0.5  # the names say that class 0 is the dog


def test_other_classes_than_the_images_have_are_refused(folder, tmp_path):
    (tmp_path / "output").mkdir()
    (tmp_path / "data").symlink_to(folder / "data")
    torch.save(networks.build("lenet5", 3, read_contract(INPUT), {}).state_dict(), tmp_path / "upload")
    with pytest.raises(SpecError, match="labels up to 3, and the network tells 3 classes apart"):
        found(tmp_path)


def test_without_images_candidates_are_listed_and_a_dataset_is_asked_for(tmp_path):
    chain = nn.Sequential(nn.Conv2d(1, 5, 3), nn.Conv2d(5, 9, 3), nn.Flatten(), nn.Linear(36, 10))
    torch.save(chain.state_dict(), tmp_path / "upload")
    job = {"kind": "teacher", "upload": "upload", "teacher": {"input": INPUT}}
    with pytest.raises(
        UploadError, match=r"no known network.*for images of 1 x 16 x 16: The plainest.*pool \(2, 2\)"
    ) as caught:
        inspect(job, tmp_path)
    assert "Give a `dataset` with labels" in caught.value.hint
    with pytest.raises(SpecError, match="for images of 1 x 28 x 28: The plainest candidates"):
        inspect(job | {"teacher": {"network": None}}, tmp_path)


def test_a_list_of_layers_that_was_found_can_be_sent_back_without_classes(tmp_path):
    network = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(980, 4))
    torch.save(network.state_dict(), tmp_path / "upload")
    layers = [{"conv": 5, "name": "0"}, {"activation": "relu"}, {"flatten": True}, {"linear": 4, "name": "3"}]
    said = {"network": "layers", "options": {"layers": layers}, "input": INPUT}
    assert inspect({"kind": "teacher", "upload": "upload", "teacher": said}, tmp_path)["findings"]["classes"] == 4


@pytest.mark.parametrize(
    ("right_there", "reads_any_size", "taken"),
    [(60, True, 60), (66, True, 60), (90, True, 90), (60, False, 60), (63, False, 60), (66, False, 66)],
)
def test_another_size_than_that_of_the_images_is_taken_if_it_is_clearly_better(
    right_there, reads_any_size, taken, monkeypatch
):
    """A network that reads any size has to be better by more than one that reads only the other."""

    def rows(count):
        return Measured("plain", torch.arange(100) < count)

    def measured(said, *_):
        count = 60 if said.contract.height == 32 else right_there
        options = {} if reads_any_size else {"padding": 2 if said.contract.height == 28 else 0}
        return [MeasuredNetwork("lenet", options, 10, said.contract, (rows(count),))]

    monkeypatch.setattr(recognise, "measured", measured)
    images = LabelledImages(torch.zeros(100, 3, 32, 32, dtype=torch.uint8), torch.arange(100) % 10, (), "test")
    said = Said.of({"input": {"channels": 3, "height": 32, "width": 32, "mean": [0.5] * 3, "std": [0.5] * 3}})
    (found,) = recognise._named(said, None, SimpleNamespace(candidates=()), images, None, 1.0)
    assert found.best.right.sum() == taken
    assert (found.contract.height == 28) == (taken != 60)


@pytest.mark.parametrize(
    ("named", "chain", "taken"), [(0.98, None, "lenet"), (0.9, 0.99, "layers"), (0.9, 0.91, "lenet")]
)
def test_a_network_of_the_catalogue_that_does_well_is_compared_with_chains(
    folder, tmp_path, monkeypatch, named, chain, taken
):
    """A LeNet may have other activations than those of the catalogue. One that does very well is taken without a search."""

    def right(share):
        return torch.arange(400) < 400 * share

    def measured(said, *_):
        rows = (Measured("plain", right(named)),)
        return [MeasuredNetwork("lenet", {"activation": "tanh", "pooling": "average"}, 4, said.contract, rows)]

    def recover(layers, image, *_):
        assert chain is not None
        reading = Reading(next(geometries(layers, (16, 16))), "tanh", "avg", Normalisation("x", (0.5,), (0.5,)))
        return Recovered(Scored(reading, right(chain), 0.1, torch.zeros(400)), (), 1)

    monkeypatch.setattr(recognise, "measured", measured)
    monkeypatch.setattr(recognise, "recover", recover)
    (tmp_path / "output").mkdir()
    for name in ("upload", "data"):
        (tmp_path / name).symlink_to(folder / name)
    assert found(tmp_path)["network"] == taken
