"""The network of weights is found by their names, or by their layers in order."""

import pytest
import torch

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.errors import UploadError
from worker.distillation.uploads.inspect_upload import inspect

RGB = {"channels": 3, "height": 32, "width": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
GREY = {"channels": 1, "height": 28, "width": 28, "mean": [0.5], "std": [0.25]}


def built(name, contract, classes=10, options=None):
    return networks.build(name, classes, InputContract(**contract), options or {})


def inspected(folder, state, contract, **said):
    torch.save(state, folder / "upload")
    job = {"kind": "teacher", "upload": "upload", "teacher": {"input": contract, **said}}
    return inspect(job, folder)["findings"]


NAMED = [
    ("lenet5", {}, GREY), ("mlp", {"hidden": [30, 20], "bias": False}, GREY), ("resnet8_cifar", {}, RGB),
    ("resnet_cifar", {"depth": 14, "width": 8}, RGB), ("wrn_cifar", {"depth": 10, "factor": 1}, RGB),
    ("vgg_cifar", {"depth": 8, "width": 8}, RGB), ("vgg_features", {"depth": 11, "width": 8, "hidden": 32}, RGB),
    ("preact_resnet18_cifar", {"width": 4}, RGB), ("resnet18_cifar", {"width": 4}, RGB),
    ("resnet50_cifar", {"width": 4}, RGB), ("mobilenetv2_cifar", {}, RGB),
    ("lenet", {"first": 4, "second": 5, "third": 20, "hidden": 10, "padding": 2, "third_linear": True}, GREY),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "contract"), NAMED, ids=[f"{name}-{options}" for name, options, _ in NAMED]
)
def test_finds_the_network_its_options_and_classes_by_names(tmp_path, name, options, contract):
    network = built(name, contract, 7, options).eval()
    findings = inspected(tmp_path, {f"module.{key}": value for key, value in network.state_dict().items()}, contract)
    assert (findings["network"], findings["classes"], findings["renamed"]) == (name, 7, {})
    assert findings["options"].items() >= options.items()
    again = built(name, contract, 7, findings["options"])
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in network.state_dict().items()
    }


def renamed(state, prefix="layer"):
    """The same tensors with other names for the layers."""
    paths = list(dict.fromkeys(key.rpartition(".")[0] for key in state))
    return {f"{prefix}_{paths.index(key.rpartition('.')[0])}.{key.rpartition('.')[2]}": state[key] for key in state}


@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet_cifar", {"depth": 8, "shortcut": "padded"}), ("wrn_cifar", {"depth": 10, "factor": 2})],
)
def test_takes_renamed_layers_in_order_and_says_so(tmp_path, name, options):
    state = built(name, RGB, 6, options).state_dict()
    findings = inspected(tmp_path, renamed(state), RGB)
    assert findings["network"] == name and findings["classes"] == 6
    assert findings["renamed"]["layer_0.weight"] == next(iter(state))
    assert any("other names" in warning for warning in findings["warnings"])
    assert findings["proposals"][0]["matched_by"] == "order of layers"


def test_networks_that_compute_different_things_are_all_named(tmp_path):
    state = built("vgg_cifar", RGB, 6, {"width": 4}).state_dict()
    with pytest.raises(UploadError, match=r"`vgg_cifar` .*; `vgg_features` ") as refused:
        inspected(tmp_path, renamed(state), RGB)
    assert "`network`" in refused.value.hint
    findings = inspected(tmp_path, renamed(state), RGB, network="vgg_cifar", options={"width": 4})
    assert findings["network"] == "vgg_cifar"


def test_a_named_network_takes_renamed_layers_and_a_linear_third_layer(tmp_path):
    state = built("lenet5", GREY).state_dict()
    state["conv3.weight"] = state["conv3.weight"].flatten(1)
    findings = inspected(tmp_path, renamed(state), GREY, network="lenet5", classes=10)
    assert findings["network"] == "lenet5" and findings["renamed"]


def test_layers_with_other_shapes_are_not_taken_in_order(tmp_path):
    state = renamed(built("lenet5", GREY).state_dict())
    state["layer_1.weight"] = torch.zeros(16, 6, 3, 3)
    with pytest.raises(UploadError, match="no known network"):
        inspected(tmp_path, state, GREY)
    with pytest.raises(UploadError, match="do not fit `lenet5`"):
        inspected(tmp_path, state, GREY, network="lenet5", classes=10)


def test_another_network_that_fits_is_named_where_the_one_given_does_not(tmp_path):
    with pytest.raises(UploadError) as refused:
        inspected(tmp_path, built("resnet8_cifar", RGB).state_dict(), RGB, network="resnet14_cifar", classes=10)
    assert "`resnet8_cifar`" in refused.value.hint


def test_takes_the_layers_of_a_list_in_order_whatever_their_names(tmp_path):
    layers = [{"conv": 4, "kernel": 5}, {"activation": "elu"}, {"pool": "global"}, {"flatten": True}, {"linear": None}]
    state = built("layers", GREY, 3, {"layers": layers}).state_dict()
    said = {"network": "layers", "options": {"layers": layers}}
    findings = inspected(tmp_path, renamed(state), GREY, **said)
    assert findings["classes"] == 3 and findings["parameters"] == 4 * 25 + 4 + 4 * 3 + 3


def test_the_mean_and_std_of_a_layer_before_the_network_become_the_contracts(tmp_path):
    inner = built("resnet8_cifar", RGB).state_dict()
    state = {f"1.{key}": value for key, value in inner.items()}
    state |= {"0.mean": torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1), "0.std": torch.full((1, 3, 1, 1), 0.5)}
    findings = inspected(tmp_path, state, RGB)
    assert findings["network"] == "resnet8_cifar"
    assert findings["input"] == RGB | {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}


def test_doubles_and_heads_of_training_are_left_out(tmp_path):
    state = renamed(built("lenet5", GREY).state_dict())
    doubled = {**state, **{f"again.{key}": value for key, value in state.items()}}
    doubled |= {"aux_head.weight": torch.zeros(10, 9), "criterion.weight": torch.ones(10)}
    assert inspected(tmp_path, doubled, GREY)["network"] == "lenet5"


def test_a_network_of_torchvision_is_taken_before_timms_with_the_same_names_and_those_are_named(tmp_path):
    findings = inspected(tmp_path, built("torchvision/resnet18", RGB, 3).state_dict(), RGB)
    assert (findings["network"], findings["classes"]) == ("torchvision/resnet18", 3)
    assert any("`timm/resnetblur18`" in warning for warning in findings["warnings"])


def test_whole_numbers_are_refused_without_naming_a_network(tmp_path):
    state = {name: tensor.to(torch.int8) for name, tensor in built("lenet5", GREY).state_dict().items()}
    for said in ({}, {"network": "lenet5", "classes": 10}):
        with pytest.raises(UploadError) as refused:
            inspected(tmp_path, state, GREY, **said)
        assert "lenet" not in refused.value.hint and "quantised" in f"{refused.value} {refused.value.hint}"
