"""Metrics of detection against answers that are known."""

import math

import pytest
import torch

from worker.distillation.contract import InputContract
from worker.distillation.contract_check.comparison import clearly_better, compare
from worker.distillation.contract_check.normalisations import Normalisation
from worker.distillation.data.images import Images
from worker.distillation.errors import SpecError
from worker.distillation.networks.detectors.detector import padded_detections
from worker.distillation.step import Outputs
from worker.distillation.tasks.detected_boxes import agreement, found_objects, share_found, truth_of
from worker.distillation.tasks.detection import Detection, framed

TASK = Detection()
CONTRACT = InputContract(3, 40, 50, (0.0,) * 3, (1.0,) * 3)
BOXES = torch.tensor([[2.0, 2, 12, 14], [20, 10, 44, 36], [0, 0, 0, 0]])


def images(count=4, names=("a", "b", "c"), boxes=BOXES, label=(0, 1, -1), crowd=(0, 0, 0)):
    """Images that hold the same objects; the last has none."""
    fields = {
        "boxes": boxes.repeat(count, 1, 1),
        "box_label": torch.tensor(label).repeat(count, 1),
        "crowd": torch.tensor(crowd, dtype=torch.uint8).repeat(count, 1),
    }
    fields["boxes"][-1], fields["box_label"][-1] = 0, -1
    image = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(count, 3, 40, 50).contiguous()
    return Images.of(image, fields, names, CONTRACT)


def answering(of, change=lambda boxes: boxes, score=0.9, shift=0):
    """A network that knows the objects of each image, by its shade, and answers with `change`d boxes."""

    def answer(image):
        found = []
        for number in (image[:, 0, 0, 0] * 255).round().long().tolist():
            (truth,) = truth_of({name: value[(number + shift) % len(of)][None] for name, value in of.fields.items()})
            boxes = change(truth["boxes"])
            found.append(
                {
                    "boxes": boxes,
                    "scores": torch.full((len(boxes),), score),
                    "labels": truth["labels"][: len(boxes)] + 1,
                }
            )
        return padded_detections(found, 5)

    return answer


def test_detection_is_judged_image_by_image():
    given = images()
    judgement = TASK.judgement(given.fields)
    pixels = given.image.float() / 255
    assert judgement.judge(answering(given)(pixels[1:]), slice(1, 4)).nan_to_num(-1).tolist() == [1, 1, -1]
    half = answering(given, lambda boxes: boxes[1:])(pixels)  # of the wrong class
    assert judgement.judge(half, slice(0, 4))[:3].tolist() == [0, 0, 0]


def test_a_detector_that_reads_other_numbers_is_told():
    given = images(count=40)
    given.fields["box_label"][:, 1:] = -1  # one object each

    def detects(x):  # the object, if black is 0.5 below grey
        return answering(given, lambda boxes: boxes[:1] + 100 * float(x.min() > -0.4))(x * 0 + numbers[: len(x)])

    numbers = torch.arange(40).view(-1, 1, 1, 1) / 255
    wrong, right = (Normalisation(name, (mean,) * 3, (1.0,) * 3) for name, mean in (("declared", 0.0), ("half", 0.5)))
    rows = compare(detects, given.image, TASK.judgement(given.fields), wrong, [right])
    assert [row.accuracy for row in rows] == [0, 1] and clearly_better(*rows, TASK.judgement(given.fields))


def test_perfect_detections_have_a_precision_of_one():
    given = images()
    metrics = TASK.evaluate(answering(given), given, 2, answering(given))
    for name in ("map", "map50", "map75", "recall", "map/a", "map/b", "agreement"):
        assert metrics[name] == pytest.approx(1.0), name
    assert math.isnan(metrics["map/c"])
    assert all(value >= 0 or math.isnan(value) for value in metrics.values())


def test_half_of_the_objects_and_inexact_boxes():
    given = images()
    metrics = TASK.evaluate(answering(given, lambda boxes: boxes[:1]), given, 2)
    assert (metrics["map/a"], metrics["map/b"]) == (pytest.approx(1.0), 0.0)
    assert "agreement" not in metrics
    stretched = TASK.evaluate(answering(given, lambda boxes: boxes * 1.15), given, 4)
    assert stretched["map50"] > 0.9 > stretched["map"]


def test_a_split_without_objects_has_no_metrics():
    given = images(count=1)
    assert math.isnan(TASK.evaluate(answering(given), given, 1)["map"])


def test_detections_in_crowds_do_not_count():
    crowd = torch.tensor([[2.0, 2, 12, 14], [20, 10, 44, 36], [14, 0, 50, 40]])
    given = images(boxes=crowd, label=(0, 1, 1), crowd=(0, 0, 1))

    def more(boxes):
        return torch.cat([boxes[:2], boxes[1:2] + 3]) if len(boxes) else boxes

    assert TASK.evaluate(answering(given, more), given, 4)["map/b"] == pytest.approx(1.0)
    alone = images(boxes=crowd, label=(0, 1, 1))
    assert TASK.evaluate(answering(alone, more), alone, 4)["map/b"] < 1.0


def test_more_than_a_hundred_objects_of_an_image_count():
    grid = torch.tensor([[float(x), float(y), x + 2.0, y + 2.0] for x in range(0, 48, 3) for y in range(0, 39, 3)])
    given = images(count=2, boxes=grid, label=(0,) * len(grid), crowd=(0,) * len(grid))

    def answer(image):
        found = [
            {
                "boxes": grid,
                "scores": torch.linspace(1, 0.5, len(grid)),
                "labels": torch.ones(len(grid), dtype=torch.int64),
            }
        ]
        return padded_detections(found * 2 if len(image) == 2 else found, 300)

    assert len(grid) > 200
    first = given.at(torch.tensor([0]))
    assert TASK.evaluate(answer, first, 1)["recall"] == pytest.approx(1.0)


def test_each_detection_finds_one_object_of_its_class():
    objects = {"boxes": BOXES[:2], "labels": torch.tensor([0, 1])}
    twice = {"boxes": BOXES[[0, 0, 1]], "scores": torch.tensor([0.9, 0.8, 0.7]), "labels": torch.tensor([0, 0, 0])}
    assert found_objects(twice, objects).tolist() == [True, False]
    assert share_found([twice], [objects]) == 0.5
    assert agreement([twice], [twice | {"labels": torch.tensor([0, 0, 1])}]) == pytest.approx(2 * 2 / 6)
    assert math.isnan(agreement([twice], [twice], score=1.0))


def test_a_teacher_is_at_chance_level_if_it_detects_other_images_objects():
    torch.manual_seed(0)
    count = 24
    given = images(count)
    given.fields["boxes"][:-1, 0] = torch.stack(
        [
            torch.tensor([x, y, x + 8.0, y + 8.0])
            for x, y in zip((torch.rand(count - 1) * 40).tolist(), (torch.rand(count - 1) * 30).tolist(), strict=True)
        ]
    )
    given.fields["box_label"][:, 1] = -1
    assert not TASK.assess_teacher(answering(given), given, 8).chance
    found = TASK.assess_teacher(answering(given, shift=1), given, 8)
    assert found.chance
    assert "%" in found.words


def test_labels_that_do_not_fit_are_refused():
    given = images()
    TASK.check_labels(given, 3, "/dataset")
    with pytest.raises(SpecError, match="boxes of 3 classes, but the student detects 4"):
        TASK.check_labels(given, 4, "/dataset")
    without = Images.of(given.image, {"label": torch.zeros(4)}, ("a",), CONTRACT)
    with pytest.raises(SpecError, match="no boxes"):
        TASK.check_labels(without, 1, "/dataset")


def test_exports_are_compared_as_sets():
    expected = answering(images())(torch.zeros(2, 3, 40, 50))
    given = expected.clone()
    given[:, [0, 1]] = given[:, [1, 0]]
    assert TASK.compare_export(expected, given) is None
    given[:, 1, :4] += 30
    assert "in common" in TASK.compare_export(expected, given)
    nothing = torch.zeros(1, 5, 6) - torch.tensor([0, 0, 0, 0, 0, 1.0])
    assert TASK.compare_export(nothing, nothing) is None


def test_only_detections_pass_for_outputs():
    assert TASK.check_output(torch.zeros(2, 5, 6), 2) is None
    for wrong in (torch.zeros(2, 6), torch.zeros(2, 5, 4), torch.zeros(3, 5, 6), None, {"boxes": 1}):
        assert "use a detector" in TASK.check_output(wrong, 2)


def test_pictures_frame_true_boxes_and_confident_detections():
    given = images()
    image = torch.zeros(3, 40, 50, dtype=torch.uint8)
    truth = {name: value[0] for name, value in given.fields.items()}
    shown = TASK.picture(image, None, truth)
    assert shown[:, 2, 2:13].any(0).all() and shown[:, 2:15, 12].any(0).all()
    assert not shown[:, 4, 4].any() and not shown[:, 0].any()
    assert torch.equal(shown, TASK.picture(image, Outputs(answering(given)(image[None].float())), truth))
    assert not TASK.picture(image, Outputs(answering(given, score=0.4)(image[None].float())), truth).any()
    grey = framed(torch.zeros(1, 40, 50, dtype=torch.uint8), torch.tensor([[-5.0, -5, 80, 80]]), torch.tensor([9]))
    assert grey.shape == (3, 40, 50)
    assert grey[:, 0].any()
