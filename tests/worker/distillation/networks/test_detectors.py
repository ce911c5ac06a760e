"""Detectors: their losses and detections are torchvision's, and a teacher looks where its student does."""

import copy

import pytest
import torch
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError
from worker.distillation.introspection.taps import Tapped
from worker.distillation.losses.boxes import proposal_losses, region_losses
from worker.distillation.networks.detectors.detector import padded_detections, unpadded
from worker.distillation.networks.detectors.two_stage import DRAWN
from worker.distillation.step import Outputs
from worker.distillation.tasks.detection import Detection

CONTRACT = InputContract(3, 96, 128, (0.0,) * 3, (1.0,) * 3)
TINY = ("tiny_faster_rcnn", "tiny_retinanet", "tiny_fcos")


def network(name="tiny_faster_rcnn", classes=2, contract=CONTRACT, **options):
    torch.manual_seed(0)
    return networks.build(name, classes, contract, options)


def images(count=3, height=96, width=128):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def targets(count=3):
    """Objects of each image; the last image has none."""
    some = {
        "boxes": torch.tensor([[4.0, 6, 30, 40], [60, 20, 110, 80], [50, 50, 62, 61]]),
        "labels": torch.tensor([1, 2, 1]),
    }
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return [{name: value.clone() for name, value in some.items()} for _ in range(count - 1)] + [none]


def torchvisions(detector):
    """torchvision's Faster R-CNN of the same modules."""
    transform = GeneralizedRCNNTransform(96, 128, [0.0] * 3, [1.0] * 3, size_divisible=detector.divisible)
    return without_draws(GeneralizedRCNN(detector.backbone, detector.rpn, detector.roi_heads, transform))


def without_draws(model):
    """The network in training, whose transform draws no size of the images."""
    model.train().transform.eval()
    return model


def test_the_four_losses_are_torchvisions_in_every_digit():
    detector = network().train()
    twin = torchvisions(copy.deepcopy(detector))
    torch.manual_seed(5)
    expected = twin(list(images()), targets())
    torch.manual_seed(5)
    outputs = detector(images(), targets(), None)
    objectness, proposals = proposal_losses(outputs)
    classes, boxes = region_losses(outputs)
    named = {
        "loss_objectness": objectness,
        "loss_rpn_box_reg": proposals,
        "loss_classifier": classes,
        "loss_box_reg": boxes,
    }
    assert named.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in named.items())
    assert all(value > 0 for value in named.values())


def test_gradients_are_torchvisions():
    detector = network().train()
    twin = torchvisions(copy.deepcopy(detector))
    torch.manual_seed(5)
    sum(twin(list(images()), targets()).values()).backward()
    torch.manual_seed(5)
    outputs = detector(images(), targets(), None)
    sum((*proposal_losses(outputs), *region_losses(outputs))).backward()
    for (name, mine), theirs in zip(detector.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name)


def test_detections_are_torchvisions():
    detector = network().eval()
    with torch.no_grad():
        expected = torchvisions(detector).eval()(list(images()))
        given = unpadded(detector(images()))
    assert sum(len(each["boxes"]) for each in given)
    for mine, theirs in zip(given, expected, strict=True):
        assert torch.equal(mine["boxes"], theirs["boxes"])
        assert torch.equal(mine["labels"], theirs["labels"] - 1)


def test_a_teacher_reads_the_students_regions_and_draws_nothing():
    student, teacher = network().train(), network(width=12, features=24, hidden=32, regions=16, proposals=50).eval()
    read = student(images(), targets(), None)
    before = torch.get_rng_state()
    taught = teacher(images(), None, read)
    assert torch.equal(before, torch.get_rng_state())
    assert all(taught.parts[name] is read.parts[name] for name in DRAWN)
    assert taught.logits.shape == read.logits.shape
    assert taught.parts["objectness"].shape == read.parts["objectness"].shape
    assert taught.parts["roi_features"].shape[:2] == read.parts["roi_features"].shape[:2]
    again = teacher(images(), None, taught)
    assert torch.equal(again.logits, taught.logits)


def test_padding_holds_nothing():
    read = network(regions=512).train()(images(), targets(), None)
    parts, valid = read.parts, read.parts["roi_valid"]
    assert not valid.all()
    assert (parts["roi_label"][~valid] == -1).all()
    assert (parts["roi_label"][valid] >= 0).all()
    for value in (read.logits, parts["rois"], parts["roi_features"], parts["roi_deltas"], parts["roi_target"]):
        assert not value[~valid].any()
    assert (parts["roi_label"][2] <= 0).all()
    assert all(value.isfinite().all() for value in parts.values())
    halves = read.chunks(3)
    assert torch.equal(halves[1].parts["rois"][0], parts["rois"][1])


def test_images_without_labels_have_proposals_alone():
    read = network().train()(images(), None, None)
    assert read.parts["roi_valid"].all()
    assert not {"roi_label", "anchor_sample"} & read.parts.keys()


@pytest.mark.parametrize("name", ["tiny_retinanet", "tiny_fcos"])
def test_losses_of_one_stage_are_torchvisions(name):
    detector = network(name).train()
    twin = copy.deepcopy(detector).whole
    twin.transform = GeneralizedRCNNTransform(96, 128, [0.0] * 3, [1.0] * 3, size_divisible=16)
    without_draws(twin)
    expected = twin(list(images()), targets())
    parts = detector(images(), targets(), None).parts
    found = {key.removeprefix("loss/"): value for key, value in parts.items() if key.startswith("loss/")}
    assert found.keys() == expected.keys()
    assert all(value.shape == (3,) and torch.equal(value[0], expected[key]) for key, value in found.items())


@pytest.mark.parametrize("name", TINY)
def test_copies_train_and_detect_for_themselves(name):
    detector = network(name)
    twin = copy.deepcopy(detector)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    one, other = (each.eval()(images(), None).logits for each in (detector, twin))
    assert one.abs().max() > 0
    assert not torch.equal(one, other)
    assert len(list(detector.parameters())) == len({id(each) for each in detector.parameters()})


@pytest.mark.parametrize("name", TINY)
def test_shapes_are_found_on_the_meta_device(name):
    with torch.device("meta"):
        detector = networks.build(name, 2, CONTRACT, {}).eval()
    tapped = Tapped(detector, torch.zeros(2, 3, 96, 128, device="meta"), check_output=Detection().check_output)
    real = network(name).eval()
    expected = real(images(2), None, None)
    given = tapped(torch.zeros(2, 3, 96, 128, device="meta"), None, None)
    assert given.logits.shape == expected.logits.shape
    shapes = {part: tuple(value.shape) for part, value in given.parts.items()}
    assert shapes == {part: tuple(value.shape) for part, value in expected.parts.items()}


@pytest.mark.parametrize("name", TINY)
def test_default_taps_are_the_maps_of_the_pyramid(name):
    tapped = Tapped(
        network(name, contract=InputContract(3, 120, 160, (0.0,) * 3, (1.0,) * 3)),
        images(2, 120, 160),
        check_output=Detection().check_output,
    )
    assert tapped.map.stages == tuple(f"backbone.pyramid.output.{level}" for level in range(3))


def test_sizes_of_the_teacher_and_the_student_of_the_study():
    def size(detector):
        return sum(parameter.numel() for parameter in detector.parameters())

    student, teacher = network(classes=3), network(classes=3, width=24, features=48, hidden=180)
    assert 55_000 < size(student) < 70_000
    assert 480_000 < size(teacher) < 590_000


def test_anchors_in_the_wrong_order_and_small_images_are_refused():
    with pytest.raises(SpecError, match="ascending"):
        network(anchors=[24, 12, 48])
    with pytest.raises(SpecError, match="at least 32x32"):
        network(contract=InputContract(3, 16, 128, (0.0,) * 3, (1.0,) * 3))


class TestLibrary:
    def test_the_background_is_one_class_more(self):
        detector = network("torchvision_detection/fasterrcnn_mobilenet_v3_large_320_fpn", classes=90)
        from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

        weights = fasterrcnn_mobilenet_v3_large_320_fpn(
            weights=None, weights_backbone=None, num_classes=91
        ).state_dict()
        detector.load_state_dict(weights)
        assert detector.classes == 90

    def test_reads_and_detects(self):
        contract = InputContract(3, 320, 320, (0.0,) * 3, (1.0,) * 3)
        detector = network("torchvision_detection/ssdlite320_mobilenet_v3_large", 2, contract).train()
        read = detector(images(2, 320, 320), targets(2), None)
        assert {name for name in read.parts if name.startswith("loss/")} == {
            "loss/classification",
            "loss/bbox_regression",
        }
        with torch.no_grad():
            assert detector.eval()(images(2, 320, 320)).shape == (2, detector.most_detections, 6)

    @pytest.mark.parametrize(
        ("name", "words"),
        [("maskrcnn_resnet50_fpn", "returns boxes alone"), ("resnet18", "no detector"), ("ssd300_vgg16", "300x300")],
    )
    def test_refuses(self, name, words):
        with pytest.raises(SpecError, match=words):
            network(f"torchvision_detection/{name}")


def test_padded_detections_are_unpadded_again():
    found = [
        {"boxes": torch.rand(2, 4), "scores": torch.rand(2), "labels": torch.tensor([2, 1])},
        {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    padded = padded_detections(found, 5)
    assert padded.shape == (2, 5, 6)
    first, second = unpadded(padded)
    assert torch.equal(first["boxes"], found[0]["boxes"])
    assert first["labels"].tolist() == [1, 0]
    assert len(second["boxes"]) == 0
    assert isinstance(network().train()(images(), None), Outputs)
