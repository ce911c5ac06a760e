"""A network is found from its bare state dict and labelled images: the one found answers as the one that was trained."""

import pytest
import torch
from safetensors.torch import save_file

from tests.worker.distillation.recovery.chains import CHAINS, HALF, OTHER, ZERO_ONE, digits, trained
from worker.distillation.contract_check.normalisations import Normalisation
from worker.distillation.data.images import Images
from worker.distillation.errors import SpecError, UploadError
from worker.distillation.networks.layer_list import build, to_json
from worker.distillation.recovery.chain import read_chain
from worker.distillation.recovery.layer_list import as_layer_list
from worker.distillation.recovery.recovered import margins
from worker.distillation.recovery.search import recover
from worker.distillation.uploads.inspect_upload import inspect

pytestmark = pytest.mark.slow

IMAGE, LABEL = (whole[::3] for whole in digits())


def way(mean, std, **changes):
    return Normalisation("trained", (mean,), (std,), **changes)


def found_for(network, image=IMAGE, label=LABEL):
    """The search's result, and the accuracies of what it found and of the trained network under its own contract."""
    chain = read_chain(network.state_dict(), image.shape[1])
    found = recover(chain, image, label, seconds=280)
    layers, state, contract = as_layer_list(found.best.reading, chain, image.shape[1])
    rebuilt = build(layers, 10, contract).eval()
    rebuilt.load_state_dict(state)
    images = Images.of(image, label, tuple(map(str, range(10))), contract)
    with torch.no_grad():
        chosen = rebuilt(images.normalise(image)).argmax(1)
    return found, layers, chosen


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_found_or_a_tie_is_shown(name):
    normalisation = way(*(ZERO_ONE, HALF, OTHER)[sorted(CHAINS).index(name) % 3])
    network = trained(name, normalisation)
    with torch.no_grad():
        expected = network(normalisation.apply(IMAGE)).argmax(1)
    found, _, chosen = found_for(network)
    right = float((expected == LABEL).double().mean())
    assert right > 0.8
    assert float((chosen == LABEL).double().mean()) > right - 0.02
    assert float((chosen == expected).double().mean()) > 0.9
    rows = margins(found)
    assert rows[0]["margin"] == 0 and all(row["sigma"] < 3 for row in rows)


def test_the_layers_that_were_found_are_the_ones_that_were_trained():
    _, layers, _ = found_for(trained("tanh_average", way(*HALF)))
    assert to_json(layers) == [
        {"conv": 6, "kernel": 5, "padding": 2, "name": "0"},
        {"activation": "tanh"},
        {"pool": "average"},
        {"conv": 12, "name": "3"},
        {"activation": "tanh"},
        {"pool": "average"},
        {"flatten": True},
        {"linear": 10, "name": "7"},
    ]


def test_residual_sums_that_were_found_are_layers_of_the_list():
    found, layers, _ = found_for(trained("sum_behind_the_activation", way(*HALF)))
    (place,) = [index for index, layer in enumerate(layers) if layer.kind == "add"]
    assert layers[place - 1].kind == "activation" and layers[2].name == layers[place].add
    assert margins(found)[0]["sums"] == [1]


@pytest.mark.parametrize("name", ["relu_max_valid", "strided"])
def test_inverted_images_become_part_of_the_weights(name):
    """The file's network saw black on white, and the dataset is white on black."""
    network = trained(name, way(0.5, 0.5, inverted=True))
    found, _, chosen = found_for(network)
    assert found.best.reading.normalisation.inverted
    assert float((chosen == LABEL).double().mean()) > 0.9


def test_weights_that_know_nothing_are_refused_with_candidates():
    network = CHAINS["relu_max_valid"]()
    with pytest.raises(UploadError, match=r"too few to recognise it.*stride 1, padding 0"):
        recover(read_chain(network.state_dict(), 1), IMAGE[:300], LABEL[:300], seconds=20)


def test_an_inspection_finds_the_network_and_writes_the_teacher(tmp_path):
    (tmp_path / "inputs").mkdir()
    torch.save(trained("relu_max_valid", way(*OTHER)).state_dict(), tmp_path / "inputs" / "upload")
    save_file(
        {"train.image": IMAGE.contiguous(), "train.label": LABEL.contiguous()},
        tmp_path / "inputs" / "dataset.safetensors",
    )
    job = {"kind": "teacher", "upload": "inputs/upload", "teacher": {"network": None}}
    findings = inspect(job | {"dataset": "inputs/dataset.safetensors"}, tmp_path)["findings"]
    assert (findings["network"], findings["classes"]) == ("layers", 10)
    assert findings["recognised"]["accuracy"] > 0.9
    assert findings["options"]["layers"] == findings["recognised"]["layers"]
    assert findings["input"]["height"] == 16 and not findings["batch_norm"]
    with pytest.raises(SpecError, match=r"is required, since the input is not given.*stride 1, padding 0"):
        inspect(job, tmp_path)
