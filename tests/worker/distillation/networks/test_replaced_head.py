"""Networks of libraries with other layers in place of their classifier."""

import pytest
import torch
from torch import nn

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError

HEAD = [{"linear": 16}, {"norm": "batch"}, {"activation": "tanh"}, {"dropout": 0.5}, {"linear": None}]


def built(name, size=64, **options):
    contract = InputContract(3, size, size, (0.5,) * 3, (0.5,) * 3)
    return networks.build(name, 7, contract, options)


@pytest.mark.parametrize(
    ("name", "place", "at", "features"),
    [
        ("torchvision/resnet18", "", "fc", 512),
        ("torchvision/mobilenet_v3_small", "classifier", "classifier", 576),
        ("torchvision/mobilenet_v3_small", "classifier.3", "classifier.3", 1024),
        ("timm/test_resnet", "", "fc", 96),
        ("timm/convnext_atto", "", "head.fc", 320),
    ],
)
def test_the_head_stands_in_place_of_the_classifier(name, place, at, features):
    network = built(name, head=HEAD, head_at=place).eval()
    first, norm, act, dropout, last = [each for each in network.get_submodule(at) if not isinstance(each, nn.Flatten)]
    assert (first.in_features, first.out_features, last.in_features, last.out_features) == (features, 16, 16, 7)
    assert (type(norm), type(act), type(dropout)) == (nn.BatchNorm1d, nn.Tanh, nn.Dropout)
    with torch.no_grad():
        assert network(torch.randn(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    ("options", "pointer", "words"),
    [
        ({"head": [{"linear": 16}]}, "/options/head/0", "answers with 16 numbers, not 7"),
        ({"head": [{"conv": 16}, {"linear": None}]}, "/options/head/0", "must be one of linear, norm"),
        ({"head": [{"linear": None, "name": "a"}]}, "/options/head/0", "without `name`"),
        ({"head": HEAD, "head_at": "layer1"}, "/options/head_at", "must contain the last linear layer, 'fc'"),
        ({"head_at": "fc"}, "/options/head_at", "needs `head`"),
        ({"head": [{"linear": None}, {"pool": "concat"}]}, "/options/head/1", "must be one of linear, norm"),
        ({"head": [{"linear": 16, "wrong": 1}]}, "/options/head/0/wrong", "unknown"),
    ],
)
def test_a_head_that_does_not_fit_is_refused_with_its_place(options, pointer, words):
    with pytest.raises(SpecError) as caught:
        built("torchvision/resnet18", **options)
    (problem,) = caught.value.problems
    assert problem.pointer == pointer and words in problem.message


def test_both_poolings_need_a_pooling_to_replace():
    with pytest.raises(SpecError, match="global average pooling is a module of its own"):
        built("torchvision/shufflenet_v2_x0_5", head=[{"pool": "concat"}, {"linear": None}])


def test_a_network_without_linear_layers_has_no_head_to_replace():
    with pytest.raises(SpecError, match="no linear layer to replace"):
        built("torchvision/squeezenet1_1", head=HEAD)


def test_googlenet_scales_images_normalised_as_for_imagenet_to_minus_one_to_one():
    torch.manual_seed(0)
    plain, scaling = (built("torchvision/googlenet", **each).eval() for each in ({}, {"transform_input": True}))
    scaling.load_state_dict(plain.state_dict())
    pixels = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        torch.testing.assert_close(scaling((pixels - mean) / std), plain((pixels - 0.5) / 0.5), atol=1e-4, rtol=1e-4)
    with pytest.raises(SpecError, match="only googlenet and inception_v3 scale"):
        built("torchvision/resnet18", transform_input=True)
