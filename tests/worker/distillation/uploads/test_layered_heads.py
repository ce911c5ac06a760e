"""Fine-tuned networks of libraries: heads of several layers, and modules with numbers for names."""

from collections import OrderedDict

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.inspect_upload import inspect
from worker.distillation.uploads.network_search import proposals
from worker.distillation.uploads.weights_file.leaves import Held

SIZE = 64
CONTRACT = InputContract(3, SIZE, SIZE, (0.5,) * 3, (0.5,) * 3)
SAID = {"channels": 3, "height": SIZE, "width": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3}
RELU, LAST = {"activation": "relu"}, {"linear": None}


def library(name):
    return networks.build(name, 5, CONTRACT)


def changed(name, path, head):
    network = library(name)
    network.set_submodule(path, head)
    return network


def layered(features, width=9):
    return nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Dropout(), nn.Linear(width, 7))


def named(features):
    return nn.Sequential(
        OrderedDict(fc1=nn.Linear(features, 9), relu=nn.ReLU(), fc2=nn.Linear(9, 7), out=nn.LogSoftmax(1))
    )


def normed(features):
    return nn.Sequential(
        nn.BatchNorm1d(features), nn.Linear(features, 9, bias=False), nn.ReLU(), nn.BatchNorm1d(9), nn.Linear(9, 7)
    )


def beside(name, classifier, numbered=True, **head):
    network, whole = library(name), nn.Module()
    network.set_submodule(classifier, nn.Identity())
    whole.backbone = nn.Sequential(*list(network.children())[:-1]) if numbered else network
    for key, module in head.items():
        whole.add_module(key, module)
    return whole


FINE_TUNED = {
    "resnet": (lambda: changed("torchvision/resnet18", "fc", layered(512)), "torchvision/resnet18", "fc", [{"linear": 9}, RELU, LAST]),
    "densenet, named": (lambda: changed("torchvision/densenet121", "classifier", named(1024)), "torchvision/densenet121", "classifier", [{"linear": 9}, RELU, LAST]),
    "norms": (
        lambda: changed("torchvision/resnet18", "fc", normed(512)), "torchvision/resnet18", "fc",
        [{"norm": "batch"}, {"linear": 9, "bias": False}, RELU, {"norm": "batch"}, LAST],
    ),
    "a norm before the activation": (
        lambda: changed("timm/test_resnet", "fc", nn.Sequential(nn.Linear(96, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 7))),
        "timm/test_resnet", "fc", [{"linear": 9}, {"norm": "batch"}, RELU, LAST],
    ),
    "no activation": (
        lambda: changed("timm/test_resnet", "fc", nn.Sequential(nn.Linear(96, 9), nn.Linear(9, 7))),
        "timm/test_resnet", "fc", [{"linear": 9}, LAST],
    ),
    "whole classifier": (lambda: changed("torchvision/mobilenet_v3_small", "classifier", layered(576)), "torchvision/mobilenet_v3_small", "classifier", [{"linear": 9}, RELU, LAST]),
    "its last layer": (lambda: changed("torchvision/mobilenet_v3_small", "classifier.3", layered(1024)), "torchvision/mobilenet_v3_small", "classifier.3", [{"linear": 9}, RELU, LAST]),
    "timm": (lambda: changed("timm/test_resnet", "fc", layered(96)), "timm/test_resnet", "fc", [{"linear": 9}, RELU, LAST]),
    "beside": (lambda: beside("torchvision/resnet18", "fc", False, fc1=nn.Linear(512, 9), fc2=nn.Linear(9, 7)), "torchvision/resnet18", "fc", [{"linear": 9}, RELU, LAST]),
    "numbers": (lambda: beside("torchvision/resnet18", "fc", fc=nn.Linear(512, 7)), "torchvision/resnet18", "fc", None),
    "numbers, features": (lambda: beside("torchvision/mobilenet_v3_small", "classifier", head=layered(576)), "torchvision/mobilenet_v3_small", "classifier", [{"linear": 9}, RELU, LAST]),
}  # fmt: skip


@pytest.mark.parametrize("form", FINE_TUNED)
@pytest.mark.parametrize("prefix", ["", "module.model."])
def test_finds_the_network_and_the_layers_of_its_head(form, prefix):
    make, name, place, head = FINE_TUNED[form]
    with torch.device("meta"):
        state = make().state_dict()
    candidate = Candidate("", {f"{prefix}{key}": Held(tensor) for key, tensor in sorted(state.items())})
    found, *others = proposals([candidate], CONTRACT)
    assert all(each.library == "timm" for each in others)  # the same weights with another pooling
    assert (found.network, found.classes) == (name, 7)
    assert found.options == ({"head": head, "head_at": place} if head else {})


def found_in(folder, trained, **said):
    torch.save(trained.state_dict(), folder / "upload")
    findings = inspect({"kind": "teacher", "upload": "upload", "teacher": {"input": SAID, **said}}, folder)["findings"]
    again = networks.build(findings["network"], findings["classes"], CONTRACT, findings["options"])
    again.load_state_dict(load_file(folder / "output" / "canonical.safetensors"))
    return findings, again.eval()


@pytest.mark.parametrize("said", [{}, {"network": "timm/test_resnet"}])
def test_a_fine_tuned_network_is_read_with_a_warning_and_computes_the_same(tmp_path, said):
    torch.manual_seed(0)
    network = changed("timm/test_resnet", "fc", layered(96)).eval()
    findings, again = found_in(tmp_path, network, **said)
    image = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(again(image), network(image))
    assert any("`activation in head` = `relu`" in words for words in findings["warnings"])


def test_the_options_that_were_found_can_be_sent_with_another_activation(tmp_path):
    network = changed("timm/test_resnet", "fc", layered(96))
    options = {"head": [{"linear": 9}, {"activation": "tanh"}, LAST], "head_at": "fc"}
    findings, again = found_in(tmp_path, network, network="timm/test_resnet", options=options)
    assert findings["options"] == options and isinstance(again.get_submodule("fc.1"), nn.Tanh)


@pytest.mark.parametrize("said", [{}, {"network": "timm/test_vit"}])
def test_the_representation_layer_of_old_vits_is_kept(tmp_path, said):
    """timm's own loading leaves `pre_logits` out, so that the classifier reads something else than in training."""
    torch.manual_seed(0)
    network = changed("timm/test_vit", "head", nn.Sequential(nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 7))).eval()
    old = {"head.0": "pre_logits.fc", "head.2": "head"}
    state = {
        old.get(place, place) + f".{part}" if place else part: tensor
        for (place, _, part), tensor in (
            (name.rpartition("."), tensor) for name, tensor in network.state_dict().items()
        )
    }
    torch.save(state, tmp_path / "upload")
    job = {"kind": "teacher", "upload": "upload", "teacher": {"input": SAID, **said}}
    findings = inspect(job, tmp_path)["findings"]
    head = [{"linear": 12}, {"activation": "tanh"}, LAST]
    assert (findings["network"], findings["options"]) == ("timm/test_vit", {"head": head, "head_at": "head"})
    again = networks.build("timm/test_vit", 7, CONTRACT, findings["options"])
    again.load_state_dict(load_file(tmp_path / "output" / "canonical.safetensors"))
    image = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(again.eval()(image), network(image))
