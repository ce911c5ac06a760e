"""Ground truths of tasks other than classification, and KD of sigmoids, against the formulas written slowly."""

import math

import pytest
import torch

from tests.worker.distillation.trial import Trial, objective_of
from worker.distillation.errors import SpecError
from worker.distillation.losses.logits import binary_kl
from worker.distillation.losses.regression import deviation, pose_weights
from worker.distillation.objectives.ground_truth.triplet import batch_hard
from worker.distillation.step import Batch, Outputs, Step

DRAW = torch.Generator().manual_seed(0)
GIVEN = torch.randn(6, 4, generator=DRAW, dtype=torch.float64)
WANTED = torch.randn(6, 4, generator=DRAW, dtype=torch.float64)


def step_of(given, teacher=None, **fields):
    return Step(Batch(torch.zeros(len(given), 1, 8, 8), fields), Outputs(given), teacher and Outputs(teacher))


def rows(*tensors):
    return list(zip(*(tensor.flatten().tolist() for tensor in tensors), strict=True))


@pytest.mark.parametrize(
    ("form", "of_one"),
    [
        ("squared", lambda d: d * d),
        ("absolute", abs),
        ("smooth_l1", lambda d: d * d / (2 * 0.5) if abs(d) < 0.5 else abs(d) - 0.25),
    ],
)
def test_errors_of_targets(form, of_one):
    objective = objective_of("target_error", form=form, threshold=0.5)
    (value,) = objective(step_of(GIVEN, target=WANTED)).values()
    expected = sum(of_one(given - wanted) for given, wanted in rows(GIVEN, WANTED)) / 24
    assert float(value) == pytest.approx(expected)
    assert deviation(GIVEN, GIVEN, form).abs().max() == 0


def test_a_pose_is_a_translation_and_a_weighed_rotation():
    objective = objective_of("target_error", rotations=3, rotation_weight=7.0)
    terms = objective(step_of(GIVEN, target=WANTED))
    squares = (GIVEN - WANTED).square().tolist()
    assert float(terms["translation"]) == pytest.approx(sum(row[0] for row in squares) / 24)
    assert float(terms["rotation"]) == pytest.approx(7 * sum(sum(row[1:]) for row in squares) / 24)
    plain = objective_of("target_error")(step_of(GIVEN, target=WANTED))["error"]
    same = objective_of("target_error", rotations=2)(step_of(GIVEN, target=WANTED))
    assert float(sum(same.values())) == pytest.approx(float(plain))
    assert pose_weights(3, 0, 5.0, torch.device("cpu")).tolist() == [1, 1, 1]


def test_more_rotations_than_outputs_are_refused():
    with pytest.raises(SpecError) as caught:
        Trial.of("plain", objective_of("target_error", rotations=6), classes=5)
    assert [problem.pointer for problem in caught.value.problems] == ["/rotations"]


def test_binary_cross_entropy_is_the_mean_negative_log_probability():
    label = (WANTED > 0).long()
    (value,) = objective_of("binary_cross_entropy")(step_of(GIVEN, label=label)).values()
    probability = [1 / (1 + math.exp(-s)) if y else 1 / (1 + math.exp(s)) for s, y in rows(GIVEN, label)]
    assert float(value) == pytest.approx(-sum(map(math.log, probability)) / 24)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_of_sigmoids(temperature):
    objective = objective_of("kd", outputs="sigmoid", temperature=temperature)
    step = Step(Batch(torch.zeros(6, 1, 8, 8)), Outputs(GIVEN), Outputs(WANTED))
    expected = 0.0
    for student, teacher in rows(GIVEN / temperature, WANTED / temperature):
        p, q = 1 / (1 + math.exp(-teacher)), 1 / (1 + math.exp(-student))
        expected += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert float(objective(step)["kd"]) == pytest.approx(temperature**2 * expected / 24)


def test_kd_of_sigmoids_pulls_by_the_difference_of_probabilities():
    """The gradient is T (sigmoid(s / T) - sigmoid(t / T)) / count, of the same order as that of cross-entropy for
    any T."""
    student = GIVEN.clone().requires_grad_(True)
    step = Step(Batch(torch.zeros(6, 1, 8, 8)), Outputs(student), Outputs(WANTED))
    objective_of("kd", outputs="sigmoid", temperature=3.0)(step)["kd"].backward()
    torch.testing.assert_close(student.grad, 3.0 * ((GIVEN / 3).sigmoid() - (WANTED / 3).sigmoid()) / 24)


def test_binary_kl_is_finite_for_confident_networks():
    sure = torch.tensor([[80.0, -80.0]])
    assert binary_kl(sure, sure).abs().max() == 0
    assert binary_kl(-sure, sure).tolist() == [[80.0, 80.0]]


def test_standardised_sigmoids_are_refused():
    with pytest.raises(SpecError) as caught:
        Trial.of("plain", objective_of("kd", outputs="sigmoid", standardise=True))
    assert [problem.pointer for problem in caught.value.problems] == ["/standardise"]


@pytest.mark.parametrize("margin", [None, 0.0, 0.7])
def test_batch_hard_triplets(margin):
    label = [0, 0, 1, 1, 1, 2]
    losses = []
    for a, anchor in enumerate(GIVEN):
        apart = [math.dist(anchor.tolist(), other.tolist()) for other in GIVEN]
        hardest = max(d for d, other in zip(apart, label, strict=True) if other == label[a])
        nearest = min(d for d, other in zip(apart, label, strict=True) if other != label[a])
        difference = hardest - nearest
        losses.append(math.log1p(math.exp(difference)) if margin is None else max(0.0, margin + difference))
    assert float(batch_hard(GIVEN, torch.tensor(label), margin)) == pytest.approx(sum(losses) / 6)


@pytest.mark.parametrize("margin", [None, 0.7])
def test_a_batch_of_one_identity_has_nothing_to_learn_and_no_nan(margin):
    x = GIVEN.clone().requires_grad_(True)
    loss = batch_hard(x, torch.zeros(6).long(), margin)
    loss.backward()
    assert loss.detach() == 0
    assert x.grad.abs().max() == 0


@pytest.mark.parametrize("name", ["relational", "darkrank", "crd"])
def test_in_the_task_embedding_the_outputs_are_compared(name):
    """In other tasks the default is the input of the classifiers; a named tap is used in any task."""
    values = {"memory": "queue", "queue": 8, "negatives": 4} if name == "crd" else {}

    def pair(task, **more):
        objective = objective_of(name, **values, **more)
        objective.task = task
        step = Trial.of("plain", objective, samples=6).step()
        return step.student, objective.embeddings(step)[0]

    student, read = pair("embedding")
    assert torch.equal(read, student.logits)
    student, read = pair("classification")
    assert torch.equal(read, student.taps["fc2:in"])
    student, read = pair("embedding", tap=["fc1", "fc1"])
    assert torch.equal(read, student.taps["fc1"])
