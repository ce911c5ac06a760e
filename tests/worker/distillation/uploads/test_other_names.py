"""Networks of timm and torchvision whose weights have the names of other code."""

import re

import pytest
import torch
from safetensors.torch import load_file

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.inspect_upload import inspect
from worker.distillation.uploads.other_names import original_code, transformers
from worker.distillation.uploads.weights_file.leaves import Held

SIZE = 32
CONTRACT = InputContract(3, SIZE, SIZE, (0.5,) * 3, (0.5,) * 3)
SAID = {"channels": 3, "height": SIZE, "width": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3}
VIT = (
    (r"^(cls_token)$", r"vit.embeddings.\1"),
    (r"^pos_embed$", "vit.embeddings.position_embeddings"),
    (r"^patch_embed\.proj", "vit.embeddings.patch_embeddings.projection"),
    (r"^blocks\.(\d+)\.attn\.proj", r"vit.encoder.layer.\1.attention.output.dense"),
    (r"^blocks\.(\d+)\.mlp\.fc1", r"vit.encoder.layer.\1.intermediate.dense"),
    (r"^blocks\.(\d+)\.mlp\.fc2", r"vit.encoder.layer.\1.output.dense"),
    (r"^blocks\.(\d+)\.norm1", r"vit.encoder.layer.\1.layernorm_before"),
    (r"^blocks\.(\d+)\.norm2", r"vit.encoder.layer.\1.layernorm_after"),
    (r"^norm", "vit.layernorm"),
    (r"^head", "classifier"),
)
CONVNEXT = (
    (r"^stem\.0", "convnext.embeddings.patch_embeddings"),
    (r"^stem\.1", "convnext.embeddings.layernorm"),
    (r"^stages\.(\d+)\.downsample", r"convnext.encoder.stages.\1.downsampling_layer"),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.conv_dw", r"convnext.encoder.stages.\1.layers.\2.dwconv"),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.norm", r"convnext.encoder.stages.\1.layers.\2.layernorm"),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc", r"convnext.encoder.stages.\1.layers.\2.pwconv"),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.gamma", r"convnext.encoder.stages.\1.layers.\2.layer_scale_parameter"),
    (r"^head\.norm", "convnext.layernorm"),
    (r"^head\.fc", "classifier"),
)
PAPER = (
    (r"^stem", "downsample_layers.0"),
    (r"^stages\.(\d+)\.downsample", r"downsample_layers.\1"),
    (r"^stages\.(\d+)\.blocks\.", r"stages.\1."),
    (r"conv_dw", "dwconv"),
    (r"mlp\.fc", "pwconv"),
    (r"^head\.norm", "norm"),
    (r"^head\.fc", "head"),
)


def renamed(state, rules):
    found = {}
    for name, tensor in state.items():
        for pattern, target in rules:
            name = re.sub(pattern, target, name)
        found[name] = tensor
    return found


def vit(state):
    found = renamed({name: tensor for name, tensor in state.items() if ".qkv." not in name}, VIT)
    for name, tensor in state.items():
        if ".qkv." in name:
            _, block, _, _, part = name.split(".")
            for role, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[f"vit.encoder.layer.{block}.attention.attention.{role}.{part}"] = third.clone()
    return found


def resnet(state):
    layer = lambda found: f"resnet.encoder.stages.{int(found[1]) - 1}.layers.{found[2]}."  # noqa: E731
    rules = (
        (r"^conv1\.", "resnet.embedder.embedder.convolution."),
        (r"^bn1\.", "resnet.embedder.embedder.normalization."),
        (r"^layer(\d)\.(\d)\.", layer),
        (r"downsample\.0", "shortcut.convolution"),
        (r"downsample\.1", "shortcut.normalization"),
        (r"\.conv(\d)\.", lambda found: f".layer.{int(found[1]) - 1}.convolution."),
        (r"\.bn(\d)\.", lambda found: f".layer.{int(found[1]) - 1}.normalization."),
        (r"^fc", "classifier.1"),
    )
    return renamed(state, rules)


FORMS = {
    "vit": ("timm/test_vit", vit, "transformers"),
    "resnet": ("torchvision/resnet18", resnet, "transformers"),
    "convnext": ("timm/test_convnext", lambda state: renamed(state, CONVNEXT), "transformers"),
    "convnext of the paper": ("timm/test_convnext", lambda state: renamed(state, PAPER), "the original code"),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_network_is_found_and_computes_the_same(form, tmp_path):
    name, change, code = FORMS[form]
    torch.manual_seed(0)
    network = networks.build(name, 5, CONTRACT).eval()
    torch.save({f"module.{key}": each for key, each in change(network.state_dict()).items()}, tmp_path / "upload")
    findings = inspect({"kind": "teacher", "upload": "upload", "teacher": {"input": SAID}}, tmp_path)["findings"]
    assert (findings["network"], findings["classes"], findings["options"]) == (name, 5, {})
    assert any(f"names of the weights are those of {code}" in words for words in findings["warnings"])
    again = networks.build(name, 5, CONTRACT)
    again.load_state_dict(load_file(tmp_path / "output" / "canonical.safetensors"))
    image = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(again.eval()(image), network(image))


def test_names_that_are_not_all_known_are_not_translated():
    state = resnet(networks.build("torchvision/resnet18", 5, CONTRACT).state_dict())
    held = {name: Held(tensor) for name, tensor in state.items()}
    assert transformers.translated(Candidate("", held)) is not None
    assert transformers.translated(Candidate("", held | {"resnet.more": Held(torch.ones(1))})) is None
    assert original_code.translated(Candidate("", held)) is None


def test_swin_of_its_paper_is_renamed_by_the_filter_of_timm():
    with torch.device("meta"):
        state = networks.build(
            "timm/swin_tiny_patch4_window7_224", 5, InputContract(3, 224, 224, (0.5,) * 3, (0.5,) * 3)
        ).state_dict()
        old = {
            re.sub(r"^layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name).replace(
                "head.fc", "head"
            ): tensor
            for name, tensor in state.items()
        }
        old["layers.0.blocks.0.attn.relative_position_index"] = torch.empty(49, 49, dtype=torch.long)
    found = original_code.translated(Candidate("", {f"model.{name}": Held(tensor) for name, tensor in old.items()}))
    assert found.tensors.keys() == state.keys()
    assert all(leaf.tensor is state[name] for name, leaf in found.tensors.items())
