"""Networks for maps: sizes, shapes, taps, and their libraries' results."""

import pytest
import torch

from tests.worker.distillation.trial import contract_of
from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError
from worker.distillation.introspection.taps import Tapped
from worker.distillation.introspection.tracing import one_map

CAMVID = InputContract(3, 64, 96, (0.5,) * 3, (0.25,) * 3)


def size_of(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("width", "least", "most"), [(28, 340_000, 380_000), (11, 50_000, 60_000)])
def test_the_sizes_of_teacher_and_student(width, least, most):
    network = networks.build("fpn", 11, CAMVID, {"width": width})
    assert least < size_of(network) < most


def test_maps_have_the_images_size_and_default_taps_are_features():
    tapped = Tapped(networks.build("fpn", 11, CAMVID, {"width": 4}), torch.zeros(2, 3, 64, 96), check_output=one_map)
    assert tapped.map.stages == ("fpn.output.0", "fpn.output.1", "fpn.output.2")
    assert [tapped.map.shapes[tap] for tap in tapped.map.stages] == [(8, 16, 24), (8, 8, 12), (8, 4, 6)]
    assert tapped(torch.zeros(2, 3, 64, 96)).logits.shape == (2, 11, 64, 96)


def test_sides_that_are_no_multiple_of_the_stride_are_kept():
    network = networks.build("fpn", 3, InputContract(1, 45, 61, (0.5,), (0.25,)), {"width": 4})
    assert network(torch.zeros(2, 1, 45, 61)).shape == (2, 3, 45, 61)


def test_depth_is_positive():
    network = networks.build("fpn_depth", 1, CAMVID, {"width": 4})
    assert (network(torch.randn(2, 3, 64, 96)) > 0).all()


def test_small_images_are_refused():
    with pytest.raises(SpecError, match="at least 32x32"):
        networks.build("fpn", 3, contract_of(3, 16))


def test_an_encoder_of_timm_has_a_pyramid():
    contract = contract_of(3, 64)
    network = networks.build("fpn_timm", 5, contract, {"encoder": "mobilenetv3_small_050", "channels": 8}).eval()
    tapped = Tapped(network, torch.zeros(2, 3, 64, 64), check_output=one_map)
    assert [tapped.map.shapes[tap][1] for tap in tapped.map.stages] == [16, 8, 4, 2]
    assert tapped(torch.zeros(2, 3, 64, 64)).logits.shape == (2, 5, 64, 64)
    with torch.device("meta"):
        networks.build("fpn_timm_depth", 1, contract, {"encoder": "mobilenetv3_small_050"})


@pytest.mark.parametrize("encoder", ["no_such_network", "vit_tiny_patch16_224"])
def test_encoders_without_a_pyramid_are_refused(encoder):
    with pytest.raises(SpecError) as caught:
        networks.build("fpn_timm", 5, contract_of(3, 64), {"encoder": encoder})
    assert [problem.pointer for problem in caught.value.problems] == ["/options/encoder"]


def test_a_network_of_torchvision_gives_torchvisions_logits():
    from torchvision.models import get_model

    name = "lraspp_mobilenet_v3_large"
    torch.manual_seed(0)
    theirs = get_model(name, weights=None, weights_backbone=None, num_classes=4).eval()
    ours = networks.build(f"torchvision_segmentation/{name}", 4, contract_of(3, 64)).eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image)["out"])
    tapped = Tapped(ours, torch.zeros(2, 3, 64, 64), check_output=one_map)
    assert all(tap.startswith("backbone.") for tap in tapped.map.stages) and tapped.map.stages


def test_unknown_networks_of_torchvision_are_refused():
    with pytest.raises(SpecError, match="lraspp_mobilenet_v3_large"):
        networks.build("torchvision_segmentation/resnet18", 4, contract_of(3, 64))
