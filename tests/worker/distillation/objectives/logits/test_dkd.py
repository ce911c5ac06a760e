"""Decoupled KD against its identity and its direct form; mistakes of public code must fail them."""

import pytest
import torch
import torch.nn.functional as F

from tests.worker.distillation.trial import objective_of
from worker.distillation.losses.logits import standardise
from worker.distillation.objectives.logits.dkd import decoupled_kl
from worker.distillation.step import Batch, Outputs, Step
from worker.distillation.trainer.objective_sum import Composition

B, K = 6, 7
LABEL = torch.arange(B) % K


@pytest.fixture
def logits():
    torch.manual_seed(0)
    return torch.randn(2, B, K, dtype=torch.float64).mul(3).unbind()


def step_of(student, teacher, label=LABEL, progress=0.0):
    batch = Batch(torch.zeros(len(student), 1, 1, 1), {"label": label})
    return Step(batch, Outputs(student), Outputs(teacher), progress=progress)


def direct(student, teacher, label=LABEL):
    """The definition, from probabilities, one sample at a time."""
    parts = []
    for s, t, y in zip(student.softmax(1), teacher.softmax(1), label, strict=True):
        binary = sum(q * (q / p).log() for p, q in ((s[y], t[y]), (1 - s[y], 1 - t[y])))
        others = [k for k in range(len(s)) if k != y]
        rest = [(s[k] / (1 - s[y]), t[k] / (1 - t[y])) for k in others]
        parts.append(torch.stack((binary, sum(q * (q / p).log() for p, q in rest))))
    return torch.stack(parts).unbind(1)


def by_logarithms_of_probabilities(student, teacher, label=LABEL):
    """As in public code: the logarithm of a softmax, and a mask of -1000."""
    is_label = F.one_hot(label, student.shape[1]).bool()
    p, q = (
        torch.stack((x.softmax(1)[is_label], x.softmax(1)[~is_label].view(len(x), -1).sum(1)), 1)
        for x in (student, teacher)
    )
    log_p, others = (student - 1000 * is_label).log_softmax(1), (teacher - 1000 * is_label).softmax(1)
    return F.kl_div(p.log(), q, reduction="none").sum(1), F.kl_div(log_p, others, reduction="none").sum(1)


def student_masked_alone(student, teacher, label=LABEL):
    """A second term whose teacher still includes the label: not a divergence."""
    log_p = student.masked_fill(F.one_hot(label, student.shape[1]).bool(), -1000.0).log_softmax(1)
    return decoupled_kl(student, teacher, label)[0], F.kl_div(log_p, teacher.softmax(1), reduction="none").sum(1)


def adds_up_to_kd(parts, student, teacher):
    target, others = parts(student, teacher, LABEL)
    kd = F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="none").sum(1)
    of_label = teacher.softmax(1)[torch.arange(B), LABEL]
    return torch.allclose(target + (1 - of_label) * others, kd, rtol=1e-10, atol=1e-12)


def test_adds_up_to_kd(logits):
    assert adds_up_to_kd(decoupled_kl, *logits)


def test_a_teacher_without_the_mask_does_not(logits):
    assert not adds_up_to_kd(student_masked_alone, *logits)


def test_is_the_direct_form(logits):
    for ours, slow in zip(decoupled_kl(*logits, LABEL), direct(*logits), strict=True):
        torch.testing.assert_close(ours, slow)


def test_terms_carry_their_weights_and_the_squared_temperature(logits):
    target, others = (part.mean() for part in direct(logits[0] / 3, logits[1] / 3))
    terms = objective_of("dkd", temperature=3.0, alpha=0.5, beta=2.0)(step_of(*logits))
    torch.testing.assert_close(terms, {"target": 0.5 * 9 * target, "non_target": 2 * 9 * others})


def test_zero_for_logits_equal_up_to_a_constant_of_the_row(logits):
    shifted = logits[0] + torch.arange(B)[:, None]
    assert all(value.abs() < 1e-12 for value in objective_of("dkd")(step_of(shifted, logits[0])).values())


def test_nothing_is_left_among_one_other_class(logits):
    student, teacher = (x[:, :2] for x in logits)
    target, others = decoupled_kl(student, teacher, LABEL % 2)
    assert (others == 0).all()
    kd = F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="none").sum(1)
    torch.testing.assert_close(target, kd)


def extremes():
    """Single-precision logits of 600 and -600: confident of the label, of another class, or of nothing."""
    rows = torch.full((B, K), -600.0)
    rows[torch.arange(0, B, 2), LABEL[::2]] = 600.0
    rows[1] = 600.0
    rows[1, LABEL[1]] = -600.0
    return rows


def is_finite_in_single_precision(parts, student, teacher):
    student = student.clone().requires_grad_(True)
    value = sum(part.sum() for part in parts(student, teacher, LABEL))
    value.backward()
    return bool(value.isfinite() and student.grad.isfinite().all())


def test_finite_at_extreme_logits():
    student, teacher = extremes(), extremes().roll(1, 0)
    for pair in ((student, teacher), (teacher, student), (student, student), (student, torch.zeros(B, K))):
        assert is_finite_in_single_precision(decoupled_kl, *pair)


def test_logarithms_of_probabilities_are_not_finite():
    torch.manual_seed(1)
    student, teacher = torch.randn(2, B, K).unbind()
    assert is_finite_in_single_precision(by_logarithms_of_probabilities, student, teacher)
    for ours, theirs in zip(
        decoupled_kl(student, teacher, LABEL), by_logarithms_of_probabilities(student, teacher), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    student[torch.arange(B), LABEL] -= 500
    assert not is_finite_in_single_precision(by_logarithms_of_probabilities, student, teacher)
    assert is_finite_in_single_precision(decoupled_kl, student, teacher)


def test_standardised_is_dkd_of_standardised_logits(logits):
    student, teacher = logits
    ours = objective_of("dkd", standardise=True)(step_of(student, teacher))
    torch.testing.assert_close(ours, objective_of("dkd")(step_of(standardise(student), standardise(teacher))))


def test_a_weight_warms_it_up(logits):
    rising = {"schedule": "linear", "start": 0.0, "end": 1.0, "until": 20 / 240}
    warmed, plain = Composition([{"name": "dkd", "weight": rising}]), Composition([{"name": "dkd"}])
    for epoch, share in ((5, 0.25), (10, 0.5), (20, 1.0), (120, 1.0)):
        step = step_of(*logits, progress=epoch / 240)
        torch.testing.assert_close(warmed(step)[0], share * plain(step)[0])
