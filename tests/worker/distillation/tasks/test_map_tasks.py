"""Segmentation and depth: their metrics, their check of a teacher, and their pictures."""

import pytest
import torch
from sklearn.metrics import jaccard_score

from worker.distillation.contract import InputContract
from worker.distillation.contract_check.comparison import clearly_better, compare
from worker.distillation.contract_check.normalisations import Normalisation
from worker.distillation.data.images import Images
from worker.distillation.errors import SpecError
from worker.distillation.step import Outputs
from worker.distillation.tasks.depth import Depth
from worker.distillation.tasks.segmentation import Segmentation, confusion_of, mean_iou

H, W, N = 6, 8, 10
CONTRACT = InputContract(1, H, W, (0.0,), (1.0,))


def images_of(name, value, names):
    image = torch.arange(len(value), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, H, W).contiguous()
    return Images.of(image, {name: value}, names, CONTRACT)


def masks():
    draw = torch.Generator().manual_seed(3)
    mask = torch.randint(3, (N, H, W), generator=draw, dtype=torch.uint8)
    mask[torch.rand(N, H, W, generator=draw) < 0.2] = 255
    return mask


def predicting(chosen, classes=4):
    """A network that recognises images by their first pixel, and predicts these classes."""

    def network(x):
        numbers = (x[:, 0, 0, 0] * 255).round().long()
        return torch.nn.functional.one_hot(chosen[numbers].long(), classes).permute(0, 3, 1, 2).float()

    return network


def test_the_mean_iou_is_that_of_scikit_learn_and_does_not_depend_on_batches():
    mask, chosen = masks(), torch.randint(3, (N, H, W), generator=torch.Generator().manual_seed(5))
    images = images_of("mask", mask, ("a", "b", "c", "absent"))
    one, many = (Segmentation().evaluate(predicting(chosen), images, size) for size in (3, N))
    assert one == many
    known = mask != 255
    expected = jaccard_score(mask[known], chosen[known], average=None, labels=[0, 1, 2])
    assert one["mean_iou"] == pytest.approx(expected.mean())
    assert [one[f"iou/{name}"] for name in "abc"] == pytest.approx(list(expected))
    assert "iou/absent" not in one
    assert one["pixel_accuracy"] == pytest.approx(float((mask == chosen)[known].double().mean()))


def test_agreement_with_a_teacher_counts_all_pixels():
    mask, chosen = masks(), torch.randint(3, (N, H, W), generator=torch.Generator().manual_seed(5))
    images = images_of("mask", mask, ("a", "b", "c", "d"))
    other = torch.where(torch.rand(N, H, W) < 0.5, chosen, 3 - chosen)
    metrics = Segmentation().evaluate(predicting(chosen), images, 4, predicting(other))
    assert metrics["agreement"] == pytest.approx(float((chosen == other).double().mean()))
    same = Segmentation().evaluate(predicting(chosen), images, 4, predicting(chosen))
    assert same["agreement"] == 1 and same["teacher_kl"] == pytest.approx(0, abs=1e-9)


def test_classes_without_pixels_do_not_count_and_wrong_ones_do():
    mask = torch.zeros(1, 2, 2, dtype=torch.uint8)
    chosen = torch.tensor([[[0, 0], [0, 1]]])
    assert mean_iou(confusion_of(chosen, mask, 3)) == pytest.approx((3 / 4 + 0) / 2)


def test_segmentation_is_judged_image_by_image():
    mask, chosen = masks(), torch.randint(3, (N, H, W), generator=torch.Generator().manual_seed(5))
    mask[3] = 255
    judgement = Segmentation().judgement({"mask": mask})
    logits = torch.nn.functional.one_hot(chosen, 4).permute(0, 3, 1, 2).float()
    found = judgement.judge(logits[2:5], slice(2, 5))
    expected = [jaccard_score(mask[n][mask[n] != 255], chosen[n][mask[n] != 255], average="macro") for n in (2, 4)]
    assert found[[0, 2]].tolist() == pytest.approx(expected) and found[1].isnan()
    constant = [judgement.judge(torch.eye(4)[k].view(1, 4, 1, 1).expand(N, 4, H, W), slice(0, N)) for k in range(4)]
    best = max(float(each.nan_to_num().mean()) for each in constant)
    assert judgement.guessed(N) == pytest.approx(best)


def test_depth_is_judged_image_by_image():
    truth = torch.tensor([[[1.0, 2.0], [4.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], [[2.0, 2.0], [2.0, 8.0]]])
    judgement = Depth().judgement({"depth": truth})
    output = torch.tensor([[1.2, 2.6], [4.9, 7.0]]).expand(3, 1, 2, 2)
    assert judgement.judge(output[:1], slice(0, 1)).tolist() == pytest.approx([2 / 3])
    assert judgement.judge(output[1:], slice(1, 3)).isnan().tolist() == [True, False]
    assert judgement.guessed(3) == pytest.approx((1 / 3 + 3 / 4) / 2)  # two metres everywhere


def test_a_network_for_depth_that_reads_other_numbers_is_told():
    image = torch.randint(256, (64, 1, H, W), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    judgement = Depth().judgement({"depth": 1 + 9 * image[:, 0].float() / 255})
    wrong, right = Normalisation("declared", (0.0,), (1 / 255,)), Normalisation("0 to 1", (0.0,), (1.0,))
    rows = compare(lambda x: 1 + 9 * x, image, judgement, wrong, [right], batch_size=10)
    assert rows[1].accuracy == 1 and clearly_better(*rows, judgement) and not clearly_better(*rows[::-1], judgement)
    assert judgement.said(0.5, 64) == "is right within a factor of 1.25 on 50.0% of the pixels of 64 training images"


def test_results_by_class():
    mask, chosen = masks(), masks().clamp(max=2)
    found = Segmentation().by_class(predicting(chosen), images_of("mask", mask, ("a", "b", "c", "d")), 4)
    assert found["iou"] == [1.0, 1.0, 1.0, None] and found["recall"][:3] == [1.0] * 3
    assert found["images"] == [N, N, N, 0] and sum(found["pixels"]) == int((mask != 255).sum())


def test_a_teacher_that_predicts_one_class_or_other_images_is_at_chance_level():
    mask = torch.zeros(N, H, W, dtype=torch.uint8)
    for number in range(N):
        mask[number, :, : number % 4 + 2] = 1
    images, task = images_of("mask", mask, ("a", "b")), Segmentation()
    assert not task.assess_teacher(predicting(mask, 2), images, 4).chance
    assert task.assess_teacher(predicting(torch.zeros_like(mask), 2), images, 4).chance
    assert task.assess_teacher(predicting(1 - mask, 2), images, 4).chance


def test_masks_with_more_classes_than_outputs_are_refused():
    with pytest.raises(SpecError, match="classes up to 2, but the student has 2"):
        Segmentation().check_labels(images_of("mask", masks(), ("a", "b", "c")), 2, "/dataset")
    with pytest.raises(SpecError, match="has no masks"):
        Segmentation().check_labels(images_of("label", torch.zeros(N).long(), ("a",)), 2, "/dataset")


def test_pictures_show_classes_in_colours_and_ignored_pixels_as_they_are():
    image, mask = torch.full((1, H, W), 100, dtype=torch.uint8), torch.full((H, W), 255, dtype=torch.uint8)
    mask[:3] = 2
    picture = Segmentation().picture(image, None, {"mask": mask})
    assert picture.shape == (3, H, W) and (picture[:, 3:] == 100).all() and (picture[:, :3] != 100).any()
    logits = torch.zeros(1, 3, H, W)
    logits[:, 2] = 1
    assert torch.equal(Segmentation().picture(image, Outputs(logits), {"mask": mask})[:, :3], picture[:, :3])


def depths():
    depth = torch.rand(N, H, W, generator=torch.Generator().manual_seed(2)) * 4 + 1
    depth[:, 0] = 0
    return depth


def of_depth(value):
    return lambda x: value[(x[:, 0, 0, 0] * 255).round().long()][:, None]


def test_the_metrics_of_depth_read_known_pixels_only():
    truth = depths()
    given = truth * torch.tensor([1.1, 1.3] * (N // 2)).view(N, 1, 1) + (truth == 0) * 50
    images = images_of("depth", truth, ("depth",))
    metrics = Depth().evaluate(of_depth(given), images, 3, of_depth(given + 0.5))
    known = truth > 0
    assert metrics["absolute_relative_error"] == pytest.approx(0.2, rel=1e-4)
    assert metrics["delta1"] == pytest.approx(0.5)
    expected = float((given - truth)[known].double().square().mean().sqrt())
    assert metrics["root_mean_squared_error"] == pytest.approx(expected, rel=1e-5)
    assert metrics["teacher_distance"] == pytest.approx(0.5, rel=1e-5)


def test_a_teacher_that_predicts_the_median_everywhere_is_at_chance_level():
    truth = depths()
    images = images_of("depth", truth, ("depth",))
    constant = torch.full_like(truth, float(truth[truth > 0].median()))
    assert Depth().assess_teacher(of_depth(constant), images, 4).chance
    assert not Depth().assess_teacher(of_depth(truth * 1.1), images, 4).chance


def test_pictures_of_depth_are_black_where_it_is_unknown():
    truth = depths()[0]
    picture = Depth().picture(torch.zeros(3, H, W, dtype=torch.uint8), None, {"depth": truth})
    assert (picture[:, 0] == 0).all() and (picture[:, 1:].amax(0) > 0).all()


@pytest.mark.parametrize(("task", "shape"), [(Segmentation, (2, 3)), (Depth, (2, 2, H, W)), (Depth, (2, H, W))])
def test_other_outputs_are_refused(task, shape):
    assert task().check_output(torch.zeros(shape), 2)
