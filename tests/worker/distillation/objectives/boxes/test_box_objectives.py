"""Objectives on boxes against their formulas, written slowly."""

import math

import pytest
import torch
import torch.nn.functional as F

from tests.worker.distillation.objectives.boxes_trial import TEACHER, BoxesTrial, batch_of, total
from worker.distillation import registry
from worker.distillation.errors import SpecError
from worker.distillation.losses.boxes import (
    bounded_distance,
    mimic_distance,
    proposal_losses,
    region_losses,
    weighted_soft_cross_entropy,
    weighted_soft_objectness,
)
from worker.distillation.step import Batch

NAMES = [
    name for name in registry.names("objectives") if registry.find("objectives", name).needs.tasks == ("detection",)
]
each_objective = pytest.mark.parametrize("name", NAMES)


def smooth_l1(distance):
    return sum(4.5 * d * d if abs(d) < 1 / 9 else abs(d) - 1 / 18 for d in distance)


def test_the_detectors_losses_slowly():
    step = BoxesTrial("detection_loss").step()
    parts, logits = step.student.detached().parts, step.student.logits.detach()
    entropy, offsets, binary, proposals, regions, anchors = 0.0, 0.0, 0.0, 0.0, 0, 0
    for image in range(len(logits)):
        for region in range(logits.shape[1]):
            if not parts["roi_valid"][image, region]:
                continue
            regions += 1
            label = int(parts["roi_label"][image, region])
            entropy -= float(logits[image, region].log_softmax(0)[label])
            if label:
                given = parts["roi_deltas"][image, region, label] - parts["roi_target"][image, region]
                offsets += smooth_l1(given.tolist())
        for anchor, sample in enumerate(parts["anchor_sample"][image].tolist()):
            if sample < 0:
                continue
            anchors += 1
            logit = float(parts["objectness"][image, anchor])
            binary += math.log1p(math.exp(-logit if sample else logit))
            if sample:
                given = parts["anchor_deltas"][image, anchor] - parts["anchor_target"][image, anchor]
                proposals += smooth_l1(given.tolist())
    slow = torch.tensor([entropy / regions, offsets / regions, binary / anchors, proposals / anchors])
    (classes, boxes), (objectness, of_anchors) = region_losses(step.student), proposal_losses(step.student)
    torch.testing.assert_close(torch.stack([classes, boxes, objectness, of_anchors]).detach(), slow)


def test_the_weights_of_the_detectors_losses():
    plain, halved = (
        BoxesTrial("detection_loss", **values) for values in ({}, {"classification": 0.5, "location": 2.0})
    )
    one, other = (trial.objective(trial.step()) for trial in (plain, halved))
    for term, factor in {"classes": 0.5, "objectness": 0.5, "boxes": 2.0, "proposals": 2.0}.items():
        torch.testing.assert_close(other[term], factor * one[term])


def test_crowds_are_not_learnt_and_images_without_objects_are_background():
    trial = BoxesTrial("detection_loss")
    step = trial.step()
    fields = dict(trial.batch.fields) | {"crowd": torch.zeros(3, 3, dtype=torch.int64)}
    assert not torch.equal(
        trial.step(Batch(trial.batch.image, fields)).student.parts["roi_label"], step.student.parts["roi_label"]
    )
    without = {name: value[:, :2] for name, value in trial.batch.fields.items()}
    assert torch.equal(
        trial.step(Batch(trial.batch.image, without)).student.parts["roi_label"], step.student.parts["roi_label"]
    )
    assert (step.student.parts["roi_label"][2] <= 0).all()
    assert (step.student.parts["anchor_sample"][2] <= 0).all()


def test_soft_cross_entropy_slowly_and_with_equal_weights():
    torch.manual_seed(0)
    student, teacher = torch.randn(7, 4), torch.randn(7, 4)
    slow = [
        -sum((1.5 if c == 0 else 1.0) * float(t.softmax(0)[c]) * float(s.log_softmax(0)[c]) for c in range(4))
        for s, t in zip(student, teacher, strict=True)
    ]
    torch.testing.assert_close(weighted_soft_cross_entropy(student, teacher, 1.5), torch.tensor(slow))
    certain = F.one_hot(torch.arange(7) % 4).float() * 1000
    expected = F.cross_entropy(student, torch.arange(7) % 4, reduction="none")
    torch.testing.assert_close(weighted_soft_cross_entropy(student, certain, 1.0), expected)


def test_soft_objectness_is_the_soft_cross_entropy_of_two_classes():
    student, teacher = torch.randn(9), torch.randn(9)
    two = [torch.stack([torch.zeros_like(each), each], dim=1) for each in (student, teacher)]
    torch.testing.assert_close(weighted_soft_objectness(student, teacher, 1.5), weighted_soft_cross_entropy(*two, 1.5))


def test_boxes_are_bounded_by_the_teacher():
    target = torch.zeros(4, 4)
    student = torch.tensor([[1.0, 0, 0, 0], [3, 0, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]], requires_grad=True)
    teacher = torch.tensor([[2.0, 0, 0, 0]]).expand(4, 4)
    assert bounded_distance(student, teacher, target, 0.0).tolist() == [0, 9, 0, 0]
    assert bounded_distance(student, teacher, target, 3.5).tolist() == [1, 9, 4, 0]
    bounded_distance(student, teacher, target, 0.0).sum().backward()
    assert student.grad.sum().item() == 6  # only the second box


def test_the_margin_of_a_tenth_of_a_region():
    """As the description of `margin` says: an error of 10 % in all four offsets is about 2.5 in squared units."""
    offsets = torch.tensor([[10 * 0.1, 10 * 0.1, 5 * math.log(1.1), 5 * math.log(1.1)]])
    value = bounded_distance(offsets, torch.zeros(1, 4), torch.zeros(1, 4), 0.0)
    assert float(value) == pytest.approx(2.5, abs=0.1)


def test_mimicry_slowly():
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 3, 2, 2), torch.randn(5, 3, 2, 2)
    slow = sum(float((s - t).square().sum()) / s.numel() for s, t in zip(student, teacher, strict=True)) / (2 * 5)
    assert float(mimic_distance(student, teacher)) == pytest.approx(slow)
    assert float(mimic_distance(student[:0], teacher[:0])) == 0


def test_mimicry_adapts_channels_also_where_they_match():
    trial = BoxesTrial("roi_mimic")
    assert trial.objective.adaptation.weight.shape == (12, 8, 1, 1)
    alike = BoxesTrial("roi_mimic", teacher=TEACHER | {"features": 8})
    assert alike.objective.adaptation.weight.shape == (8, 8, 1, 1)
    step = trial.step()
    valid = step.student.parts["roi_valid"]
    mine = trial.objective.adaptation(step.student.parts["roi_features"][valid])
    expected = 0.5 * (mine - step.teacher.parts["roi_features"][valid]).square().mean()
    torch.testing.assert_close(trial.objective(step)["features"], expected)


@each_objective
def test_works_on_a_batch_without_objects(name):
    trial, batch = BoxesTrial(name), batch_of()
    empty = {
        name: value.new_full(value.shape, -1 if name == "box_label" else 0) for name, value in batch.fields.items()
    }
    terms = trial.objective(trial.step(Batch(batch.image, empty)))
    assert all(value.isfinite() for value in terms.values())
    total(terms).backward()


@pytest.mark.parametrize("name", ["soft_detection", "bounded_boxes", "roi_mimic"])
def test_refuses_detectors_of_one_stage(name):
    with pytest.raises(SpecError, match="which the teacher is not") as caught:
        BoxesTrial(name, kinds=("tiny_faster_rcnn", "tiny_fcos"))
    assert [problem.pointer for problem in caught.value.problems] == ["/name"]
    with pytest.raises(SpecError, match="which the student is not"):
        BoxesTrial(name, kinds=("tiny_retinanet", "tiny_faster_rcnn"))


@pytest.mark.parametrize("kind", ["tiny_retinanet", "tiny_fcos"])
def test_detectors_of_one_stage_learn_by_their_own_losses(kind):
    trial = BoxesTrial("detection_loss", kinds=(kind, "tiny_faster_rcnn"))
    terms = trial.objective(trial.step())
    assert {"classes", "boxes"} <= terms.keys()
    total(terms).backward()
    assert any(each.grad is not None and each.grad.abs().max() > 0 for each in trial.student.network.parameters())


@pytest.mark.parametrize("name", ["nst", "attention_transfer", "hint"])
def test_feature_objectives_read_the_maps_of_the_pyramid(name):
    trial = BoxesTrial(name)
    terms = trial.objective(trial.step())
    assert all("backbone.pyramid.output" in term for term in terms)
    total(terms).backward()
    assert any(each.grad is not None and each.grad.abs().max() > 0 for each in trial.student.network.parameters())


def test_unlabelled_images_are_compared_at_the_best_proposals():
    batch = Batch(batch_of().image, {})
    for name in ("soft_detection", "roi_mimic"):
        trial = BoxesTrial(name)
        terms = trial.objective(trial.step(batch))
        assert terms.keys() <= {"classes", "features"}
        total(terms).backward()
