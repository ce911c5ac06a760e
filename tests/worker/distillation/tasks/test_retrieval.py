"""Retrieval metrics against the formulas written slowly, one pair at a time."""

import math

import pytest
import torch

from tests.worker.distillation.tasks.test_classification import images_of
from worker.distillation.data.images import Images
from worker.distillation.errors import SpecError
from worker.distillation.tasks import retrieval
from worker.distillation.tasks.embedding import Embedding
from worker.distillation.tasks.retrieval import accepted, average_precision, first_match, measure, rankings

COUNT = 24


def drawn(seed=0):
    draw = torch.Generator().manual_seed(seed)
    embedding = torch.randn(COUNT, 5, generator=draw, dtype=torch.float64)
    label = torch.randint(0, 5, (COUNT,), generator=draw)
    label[-1] = 9  # an identity of a single image
    camera = torch.randint(0, 3, (COUNT,), generator=draw)
    query = (torch.rand(COUNT, generator=draw) < 0.3).long()
    return embedding, label, camera, query


def cosine(a, b):
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def slowly(embedding, label, camera=None, query=None, rate=0.01):
    """Mean average precision, CMC at 1, 5 and 10, TAR, and the number of queries, by loops over images."""
    queries = [i for i in range(COUNT) if query is None or query[i]]
    gallery = [j for j in range(COUNT) if query is None or not query[j]]
    precisions, firsts, genuine, impostor = [], [], [], []
    for i in queries:
        candidates = [
            j
            for j in gallery
            if j != i and not (camera is not None and label[i] == label[j] and camera[i] == camera[j])
        ]
        candidates.sort(key=lambda j: -cosine(embedding[i], embedding[j]))
        right = [bool(label[j] == label[i]) for j in candidates]
        for j, same in zip(candidates, right, strict=True):
            (genuine if same else impostor).append(cosine(embedding[i], embedding[j]))
        if any(right):
            hits = [place for place, same in enumerate(right) if same]
            precisions.append(sum((n + 1) / (place + 1) for n, place in enumerate(hits)) / len(hits))
            firsts.append(hits[0])
    tar = 0.0
    for threshold in {-2.0, *impostor}:  # accepted is what lies above
        if sum(c > threshold for c in impostor) <= rate * len(impostor):
            tar = max(tar, sum(c > threshold for c in genuine) / len(genuine))
    cmc = [sum(first < rank for first in firsts) / len(firsts) for rank in (1, 5, 10)]
    return sum(precisions) / len(precisions), *cmc, tar, float(len(firsts))


@pytest.mark.parametrize("cameras", [False, True])
@pytest.mark.parametrize("gallery", [False, True])
@pytest.mark.parametrize("at_once", [1, 50, 1 << 20])
def test_metrics_equal_the_slow_formulas(monkeypatch, cameras, gallery, at_once):
    monkeypatch.setattr(retrieval, "PAIRS_AT_ONCE", at_once)
    embedding, label, camera, query = drawn()
    given = camera if cameras else None, query if gallery else None
    metrics = measure(embedding, label, *given, rates=(0.05,))
    name = "cmc" if cameras else "recall_at"
    keys = ("mean_average_precision", f"{name}_1", f"{name}_5", f"{name}_10", "tar_at_far_0.05", "queries")
    expected = dict(zip(keys, slowly(embedding, label, *given, rate=0.05), strict=True))
    assert metrics == pytest.approx(expected)
    assert metrics["queries"] < COUNT  # some queries have no match


def test_only_images_of_the_same_identity_and_camera_are_left_out():
    near, label = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-0.1, 1.0]]), torch.tensor([0, 0, 1, 0])
    camera = torch.tensor([1, 1, 1, 2])
    assert measure(near, label, None)["recall_at_1"] == pytest.approx(2 / 3)
    parts = list(rankings(near, label, camera))
    assert parts[0].match[0].tolist() == [
        False,
        True,
        False,
        False,
    ]  # its twin has the same camera, the last image has another
    assert measure(near, label, camera)["cmc_1"] == 0.0


def test_average_precision_and_first_match_by_hand():
    match = torch.tensor([[True, False, True, False], [False, False, False, True]])
    assert average_precision(match).tolist() == [(1 + 2 / 3) / 2, 1 / 4]
    assert first_match(match).tolist() == [0, 3]
    assert average_precision(torch.zeros(1, 3, dtype=torch.bool)).isnan().all()


@pytest.mark.parametrize(("rate", "share"), [(0.0, 1 / 4), (0.25, 2 / 4), (0.49, 2 / 4), (0.5, 3 / 4), (0.75, 1.0)])
def test_true_accept_rate_by_hand(rate, share):
    genuine, impostor = torch.tensor([0.9, 0.6, 0.4, 0.2]), torch.tensor([0.7, 0.5, 0.3, 0.1])
    assert accepted(genuine, impostor, 4, rate) == share


def test_a_genuine_pair_as_near_as_an_impostor_is_not_accepted():
    assert accepted(torch.tensor([0.7, 0.9]), torch.tensor([0.7, 0.1]), 2, 0.0) == 1 / 2


def test_rates_below_one_pair_have_no_metric():
    embedding, label, _, _ = drawn()
    metrics = measure(embedding, label)
    assert "tar_at_far_0.01" in metrics and "tar_at_far_0.0001" not in metrics


def test_a_perfect_and_a_random_embedding():
    label = torch.arange(200) % 20
    metrics = measure(torch.eye(20)[label].double(), label)
    assert metrics["mean_average_precision"] == metrics["recall_at_1"] == metrics["tar_at_far_0.001"] == 1.0
    noise = measure(torch.randn(200, 8, generator=torch.Generator().manual_seed(0)).double(), label)
    assert noise["mean_average_precision"] < 0.15


def table(values):
    """A network that returns each image's row."""
    return lambda image: values[(image[:, 0, 0, 0] * 255).round().long()]


def test_the_task_measures_and_compares():
    embedding, label, camera, query = drawn()
    images = images_of(label, 10)
    images = Images.of(
        images.image, {"label": label, "camera": camera, "query": query}, images.class_names, images.contract
    )
    metrics = Embedding().evaluate(table(embedding), images, 7, table(embedding * 3))
    assert metrics.pop("agreement") == 1.0
    assert metrics == pytest.approx(measure(embedding, label, camera, query))
    other = Embedding().evaluate(table(embedding), images, 7, table(drawn(1)[0]))
    assert other["agreement"] < 0.5


def test_the_task_separates_knowledge_from_chance():
    label = torch.arange(120) % 6
    images, draw = images_of(label, 6), torch.Generator().manual_seed(0)
    noise = torch.randn(120, 8, generator=draw)
    assert Embedding().assess_teacher(table(noise), images, 50).chance
    assert Embedding().assess_teacher(table(torch.ones(120, 8)), images, 50).chance
    assert not Embedding().assess_teacher(table(noise + 2 * torch.eye(8)[label]), images, 50).chance


def test_a_set_without_pairs_is_refused():
    with pytest.raises(SpecError, match="so that retrieval cannot be measured"):
        Embedding().check_labels(images_of(torch.arange(5), 5), 3, "/dataset")
