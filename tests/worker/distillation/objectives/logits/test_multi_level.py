"""Multi-level logit distillation against its formula written slowly, and constant predictions."""

import math

import pytest
import torch

from tests.worker.distillation.trial import objective_of
from worker.distillation.objectives.logits.multi_level import divergence, gram_distances, masks
from worker.distillation.step import Batch, Outputs, Step


def logits(seed, samples=6, classes=5):
    return 3 * torch.randn(samples, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step_of(student, teacher, second, second_teacher):
    batch = Batch(torch.zeros(len(student), 1, 8, 8))
    outputs = [Outputs(each) for each in (student, teacher, second, second_teacher)]
    return Step(batch, outputs[0], outputs[1], second=outputs[2], second_teacher=outputs[3])


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def softmax(row, temperature):
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def slowly(student, teacher, second, second_teacher, temperatures, masked=True):
    """The three levels in plain Python."""
    student, teacher, second, second_teacher = (each.tolist() for each in (student, teacher, second, second_teacher))
    samples, classes = range(len(student)), range(len(student[0]))
    sure = [softmax(row, 1) for row in teacher]
    of_sample = [max(row) for row in sure]
    of_class = [sum(row[k] for row in sure) for k in classes]
    kept = [i for i in samples if not masked or of_sample[i] <= median(of_sample)]
    kept_classes = [k for k in classes if not masked or of_class[k] <= median(of_class)]
    instance = batch = between = 0.0
    for t in temperatures:
        for rows, p_of, q_of in ((kept, student, teacher), (samples, second, second_teacher)):
            for i in rows:
                p, q = softmax(p_of[i], t), softmax(q_of[i], t)
                instance += t**2 * sum(q[k] * math.log(q[k] / p[k]) for k in classes) / len(student)
        p, q = [softmax(row, t) for row in student], [softmax(row, t) for row in teacher]
        for i in samples:
            for j in kept:
                batch += sum(q[i][k] * q[j][k] - p[i][k] * p[j][k] for k in classes) ** 2 / len(student)
        for k in classes:
            for m in kept_classes:
                between += sum(q[i][k] * q[i][m] - p[i][k] * p[i][m] for i in samples) ** 2 / len(classes)
    return {"instance": instance, "batch": batch, "class": between}


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("samples", "classes"), [(6, 5), (7, 4)])
def test_is_the_formula_written_slowly(masked, samples, classes):
    given = [logits(seed, samples, classes) for seed in range(4)]
    terms = objective_of("multi_level", temperatures=[2.0, 5.0], masks=masked)(step_of(*given))
    expected = slowly(*given, [2.0, 5.0], masked)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(value, rel=1e-9)


def test_masks_leave_samples_out_one_by_one_and_not_all_by_their_mean():
    student, teacher = logits(0), logits(1)
    samples, _ = masks(teacher, True)
    sure = teacher.softmax(1).amax(1).tolist()
    assert samples.tolist() == [float(each <= median(sure)) for each in sure]
    masked = divergence(student, teacher, 4.0, samples)
    by_mean = divergence(student, teacher, 4.0, torch.ones(6)) * samples.mean()  # the formula of the released code
    assert not torch.isclose(masked, by_mean, rtol=1e-3)
    changed = student.clone()
    changed[samples == 0] += torch.randn(3, 5)
    assert torch.equal(divergence(changed, teacher, 4.0, samples), masked)


def test_gram_distance_of_constant_predictions():
    """Identical samples: a one-hot teacher's Gram matrices are all ones, and B at one place; a uniform student's are
    1/K and B/K²."""
    flat, sure = torch.zeros(4, 2, dtype=torch.float64), torch.tensor([[1000.0, 0.0]]).double().expand(4, 2)
    of_samples, of_classes = gram_distances(flat, sure, 1.0, torch.ones(4), torch.ones(2))
    assert float(of_samples) == pytest.approx(16 * 0.5**2 / 4)
    assert float(of_classes) == pytest.approx((3**2 + 3 * 1**2) / 2)


def test_equal_networks_have_nothing_to_learn():
    first, second = logits(0), logits(1)
    terms = objective_of("multi_level")(step_of(first, first, second, second))
    assert all(abs(float(term)) < 1e-12 for term in terms.values())


def test_standardised_it_is_blind_to_the_size_of_logits():
    given = [logits(seed) for seed in range(4)]
    objective = objective_of("multi_level", standardise=True)
    scaled = [3 * given[0] + 2, given[1], 0.5 * given[2] - 1, given[3]]
    for name, term in objective(step_of(*given)).items():
        torch.testing.assert_close(objective(step_of(*scaled))[name], term, rtol=1e-5, atol=0)
