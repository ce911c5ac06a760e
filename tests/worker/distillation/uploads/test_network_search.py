"""The network of weights is found by their names, or by their layers in order."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.errors import UploadError
from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.heads import of_libraries, other_heads
from worker.distillation.uploads.inspect_upload import inspect
from worker.distillation.uploads.network_search import proposals
from worker.distillation.uploads.weights_file.leaves import Held

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


@pytest.mark.parametrize(
    ("said", "options", "found"),
    [
        ({"network": "resnet14_cifar", "classes": 10}, {}, "resnet8_cifar"),
        (
            {"network": "lenet", "options": {"activation": "tanh", "first": 9}},
            {"first": 4, "second": 5, "third": 20, "hidden": 10, "padding": 2, "activation": "tanh"},
            "lenet",
        ),
    ],
)
def test_the_one_network_that_fits_is_taken_where_the_named_one_does_not(tmp_path, said, options, found):
    contract = GREY if found == "lenet" else RGB
    findings = inspected(tmp_path, built(found, contract, 10, options).state_dict(), contract, **said)
    assert findings["network"] == found and findings["options"].items() >= options.items()
    assert any(f"the weights are not those of `{said['network']}`" in words for words in findings["warnings"])


def test_another_network_that_fits_is_not_taken_with_other_classes(tmp_path):
    state = built("resnet8_cifar", RGB, 7).state_dict()
    with pytest.raises(UploadError) as refused:
        inspected(tmp_path, state, RGB, network="resnet14_cifar", classes=10)
    assert "`resnet8_cifar`" in refused.value.hint and "7 classes" in refused.value.hint


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


def sorted_by_name(state):
    """As safetensors and other formats have them."""
    return dict(sorted(state.items()))


PUBLIC = [
    ("resnet_cifar", {"depth": 14, "width": 8}), ("resnet18_cifar", {"width": 4}), ("densenet_cifar", {"blocks": [2, 1, 3]}),
    ("googlenet_cifar", {}), ("shufflenetv2_cifar", {"widths": [8, 12, 16], "features": 20}), ("mobilenetv2_cifar", {}),
    ("repvgg_cifar", {"blocks": [1, 2, 2, 1], "widths": [4, 6, 8, 10, 12]}), ("repvgg_cifar", {"deployed": True}),
    ("preact_resnet50_cifar100", {"width": 4}), ("densenet_cifar100", {"blocks": [2, 1, 3]}), ("googlenet_cifar100", {}),
    ("shufflenetv2_cifar100", {"widths": [8, 12, 16]}), ("mobilenetv2_cifar100", {}),
]  # fmt: skip


@pytest.mark.parametrize("change", [dict, sorted_by_name])
@pytest.mark.parametrize(("name", "options"), PUBLIC, ids=[f"{name}-{options}" for name, options in PUBLIC])
def test_proposes_public_networks_first_whatever_the_order_of_their_names(name, options, change):
    first, *_ = proposed(change(on_meta(name, 7, options).state_dict()))
    assert (first.network, first.classes, first.renamed) == (name, 7, False)
    assert first.options.items() >= options.items()


TORCHVISION = (
    "vgg11_bn", "squeezenet1_1", "resnet18", "wide_resnet50_2", "densenet121", "googlenet", "inception_v3",
    "mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf", "convnext_tiny", "vit_b_16", "swin_t",
)  # fmt: skip
TIMM = (
    "resnet18d", "seresnet18", "mobilenetv3_small_100", "efficientnet_lite0", "lcnet_050", "regnety_002",
    "ghostnet_100", "repvgg_a0", "dla34", "convnext_atto", "mixer_s32_224", "swin_tiny_patch4_window7_224",
)  # fmt: skip


@pytest.mark.parametrize("name", [*(f"torchvision/{each}" for each in TORCHVISION), *(f"timm/{each}" for each in TIMM)])
def test_proposes_networks_of_libraries_from_bare_state_dicts(name):
    size = 299 if "inception" in name else 224
    state = on_meta(name, 7, size=size).state_dict()
    found = proposed({f"model.{key}": value for key, value in sorted_by_name(state).items()}, size)
    assert (name, {}, 7) in [(each.network, each.options, each.classes) for each in found]
    assert found[0].network.partition("/")[2] in (name.partition("/")[2], "")


def on_meta(name, classes, options=None, size=32):
    with torch.device("meta"):
        return networks.build(name, classes, InputContract(3, size, size, (0.5,) * 3, (0.5,) * 3), options)


def proposed(state, size=32):
    contract = InputContract(3, size, size, (0.5,) * 3, (0.5,) * 3)
    return proposals([Candidate("", {name: Held(tensor) for name, tensor in state.items()})], contract)


def test_auxiliary_heads_are_dropped():
    state = on_meta("torchvision/googlenet", 7, size=64).state_dict()
    state |= {"aux1.fc2.weight": torch.zeros(7, 1024, device="meta"), "aux2.fc2.bias": torch.zeros(7, device="meta")}
    for found, options in zip(proposed(state, 64), ({}, {"transform_input": True}), strict=True):
        assert (found.network, found.options) == ("torchvision/googlenet", options)
        assert found.fits[0].left_over == ["aux1.fc2.weight", "aux2.fc2.bias"]


@pytest.mark.parametrize(("mean", "options"), [((0.485, 0.456, 0.406), {"transform_input": True}), ((0.5,) * 3, {})])
def test_googlenet_scales_its_input_if_that_is_normalised_as_for_imagenet(tmp_path, mean, options):
    contract = RGB | {"height": 64, "width": 64, "mean": list(mean)}
    findings = inspected(tmp_path, built("torchvision/googlenet", contract).state_dict(), contract)
    assert findings["options"] == options
    assert any("`transform_input` is" in words for words in findings["warnings"])


def test_halves_of_a_file_are_tried_and_one_can_be_chosen(tmp_path):
    small, large = (built("resnet_cifar", RGB, 5, {"depth": depth, "width": 4}) for depth in (8, 14))
    state = {f"student.{key}": each for key, each in small.state_dict().items()}
    state |= {f"teacher.{key}": each for key, each in large.state_dict().items()}
    for weights, depth in (("auto", 14), ("teacher", 14), ("student", 8)):
        findings = inspected(tmp_path, state, RGB, weights=weights)
        assert (findings["network"], findings["options"]["depth"]) == ("resnet_cifar", depth)


def test_a_network_without_its_classifier_is_refused_with_its_name(tmp_path):
    state = {
        key: each for key, each in built("timm/test_resnet", RGB).state_dict().items() if not key.startswith("fc.")
    }
    with pytest.raises(UploadError, match=r"those of `timm/test_resnet` without its classifier"):
        inspected(tmp_path, state, RGB)


def moved(state, old, new):
    return {new + key.removeprefix(old) if key.startswith(old) else key: value for key, value in state.items()}


def behind(prefix, state, head):
    """The network under a prefix, and its classifier beside it."""
    return {key if key.startswith(head) else prefix + key: value for key, value in state.items()}


HEADS = [
    ("torchvision/resnet18", lambda state: moved(state, "fc.", "fc.1."), "fc.1", "fc"),
    ("torchvision/resnet18", lambda state: behind("backbone.", state, "fc."), "fc", "backbone.fc"),
    ("torchvision/mobilenet_v3_small", lambda state: moved(state, "classifier.3.", "classifier.3.1."), "classifier.3.1", "classifier.3"),
    ("torchvision/efficientnet_b0", lambda state: moved(state, "classifier.1.", "classifier."), "classifier", "classifier.1"),
    ("torchvision/efficientnet_b0", lambda state: moved(state, "classifier.1.", "classifier.1.1."), "classifier.1.1", "classifier.1"),
    ("torchvision/vgg11_bn", lambda state: moved(state, "classifier.6.", "classifier.6.1."), "classifier.6.1", "classifier.6"),
    ("torchvision/vit_b_16", lambda state: moved(state, "heads.head.", "heads."), "heads", "heads.head"),
    ("timm/convnext_atto", lambda state: moved(state, "head.fc.", "head.fc.1."), "head.fc.1", "head.fc"),
    ("timm/lcnet_050", lambda state: moved(state, "classifier.", "classifier.0."), "classifier.0", "classifier"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "wrapped", "given", "read"), HEADS, ids=[f"{head[0]}-{head[2]}" for head in HEADS])
def test_finds_classifiers_under_other_names(name, wrapped, given, read):
    state = sorted_by_name(wrapped(on_meta(name, 7, size=224).state_dict()))
    candidate = Candidate("", {key: Held(tensor) for key, tensor in state.items()})
    heads = [each for each in other_heads([candidate]) if of_libraries(each)]
    contract = InputContract(3, 224, 224, (0.5,) * 3, (0.5,) * 3)
    found = proposals([candidate, *heads], contract)
    assert (name, 7) in [(each.network, each.classes) for each in found]
    assert all(each.fits[0].candidate.head == (given, read) for each in found if not each.renamed)


def test_a_wrapped_classifier_is_read_for_a_network_that_is_named_or_found_and_a_warning_says_so(tmp_path):
    state = built("timm/test_resnet", RGB, 7).state_dict()
    for said in ({}, {"network": "timm/test_resnet"}):
        findings = inspected(tmp_path, moved(state, "fc.", "fc.1."), RGB, **said)
        assert (findings["network"], findings["classes"]) == ("timm/test_resnet", 7)
        assert "the classifier `fc.1` was read as `fc`" in findings["warnings"]


def test_a_head_of_several_layers_is_not_taken_for_a_wrapped_one():
    state = moved(on_meta("torchvision/resnet18", 7).state_dict(), "fc.", "fc.3.")
    state |= {"fc.0.weight": torch.zeros(512, 512, device="meta"), "fc.0.bias": torch.zeros(512, device="meta")}
    candidate = Candidate("", {key: Held(tensor) for key, tensor in state.items()})
    assert not [each for each in other_heads([candidate]) if of_libraries(each)]


@pytest.mark.parametrize(
    ("mean", "std"),
    [("normalize.mean", "normalize.std"), ("0._mean", "0._std"), ("normalizer.new_mean", "normalizer.new_std"), ("mu", "sigma")],
)  # fmt: skip
def test_the_mean_and_std_of_a_normalising_layer_are_read_under_usual_names(tmp_path, mean, std):
    state = {f"model.{key}": value for key, value in built("resnet8_cifar", RGB).state_dict().items()}
    state |= {mean: torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), std: torch.full((3, 1, 1), 0.5)}
    findings = inspected(tmp_path, state, RGB)
    assert findings["input"] == RGB | {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}


def test_networks_with_the_same_weights_and_other_strides_are_offered_with_what_tells_them_apart(tmp_path):
    state = built("torchvision/mobilenet_v2", RGB, options={"stem": "cifar", "width": 0.25}).state_dict()
    with pytest.raises(UploadError) as refused:
        inspected(tmp_path, state, RGB)
    assert '"stem": "cifar"' in str(refused.value) and "`features.0.0` is Conv2d(" in str(refused.value)
    assert "`options`" in refused.value.hint
    named = {"network": "torchvision/mobilenet_v2", "options": {"stem": "cifar", "width": 0.25}}
    assert inspected(tmp_path, state, RGB, **named)["options"] == named["options"]


def test_for_large_images_the_published_strides_are_taken_and_a_warning_names_the_others(tmp_path):
    state = built("torchvision/shufflenet_v2_x0_5", RGB).state_dict()
    findings = inspected(tmp_path, state, RGB | {"height": 96, "width": 96})
    assert findings["options"] == {}
    assert any("was taken" in warning and '"stem": "cifar"' in warning for warning in findings["warnings"])


def labelled(folder, network, images=256):
    """A dataset whose labels are a network's own answers, which are made to differ."""
    image = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8)
    image[:, :, ::4] = image[:, :1, :1, :1]
    with torch.no_grad():
        logits = network.eval()((image.float() / 255 - 0.5) / 0.25)
        network.get_parameter("fc.bias").sub_(logits.mean(0))
        label = (logits - logits.mean(0)).argmax(1)
    save_file({"train.image": image, "train.label": label}, folder / "dataset.safetensors")
    return "dataset.safetensors"


@pytest.mark.slow
def test_labelled_images_tell_networks_with_the_same_weights_apart(tmp_path):
    torch.manual_seed(0)
    network = built("torchvision/shufflenet_v2_x0_5", RGB, options={"stem": "cifar"})
    dataset = labelled(tmp_path, network)
    torch.save(network.state_dict(), tmp_path / "upload")
    job = {"kind": "teacher", "upload": "upload", "teacher": {"input": RGB}, "dataset": dataset}
    findings = inspect(job, tmp_path)["findings"]
    assert findings["options"]["stem"] == "cifar" and findings["recognised"]["accuracy"] > 0.9
    changed = load_file(tmp_path / dataset)
    changed["train.label"] = torch.randint(0, 10, (256,))
    save_file(changed, tmp_path / dataset)
    with pytest.raises(UploadError, match="no network was recognised"):
        inspect(job, tmp_path)


@pytest.mark.parametrize("said", [{}, {"network": "torchvision/resnet18", "classes": 10}])
def test_the_bias_of_a_replaced_first_convolution_becomes_part_of_the_norm_behind_it(tmp_path, said):
    network = built("torchvision/resnet18", GREY)
    network.conv1 = nn.Conv2d(1, 64, 7, 2, 3)
    nn.init.normal_(network.bn1.running_mean)
    findings = inspected(tmp_path, network.state_dict(), GREY, **said)
    assert findings["network"] == "torchvision/resnet18" and findings["left_over"]["count"] == 0
    assert findings["folded"] == ["bn1.running_mean"]
    read = built("torchvision/resnet18", GREY).eval()
    read.load_state_dict(load_file(tmp_path / "output" / "canonical.safetensors"))
    image = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(read(image), network.eval()(image))


def test_a_bias_that_the_network_has_not_is_never_ignored(tmp_path):
    network = built("mlp", GREY, options={"hidden": [30], "bias": False})
    first = next(iter(network.state_dict())).removesuffix("weight")
    state = network.state_dict() | {f"{first}bias": torch.ones(30)}
    with pytest.raises(UploadError, match=rf"larger network than.*1 unexpected \({first}bias\)"):
        inspected(tmp_path, state, GREY, network="mlp", classes=10, options={"hidden": [30], "bias": False})
    with pytest.raises(UploadError):
        inspected(tmp_path, state, GREY)
