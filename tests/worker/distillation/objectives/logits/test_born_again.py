"""Born-again networks' targets against their definitions; mistakes of public code must fail them."""

import itertools
import math
import shutil
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from tests.worker.distillation.killed_runs import job_of, run_killed, run_whole, same_bits, student_of
from tests.worker.distillation.trial import objective_of
from worker.distillation.errors import SpecError
from worker.distillation.losses.logits import softened_kl, standardise
from worker.distillation.objective import BuildContext
from worker.distillation.objectives.logits.born_again import confidence_weights, keys, permuted
from worker.distillation.step import Batch, Outputs, Step

B, K = 6, 5


@pytest.fixture
def logits():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, B, K, dtype=torch.float64).mul(2).unbind()
    return student.requires_grad_(True), teacher


def built(**values):
    objective = objective_of("born_again", **values)
    outputs = Outputs(torch.zeros(2, K))
    objective.build(BuildContext(outputs, outputs, torch.nn.Identity(), torch.nn.Identity(), K))
    return objective


def step_of(student, teacher, number=0, index=None):
    index = torch.arange(len(student)) if index is None else index
    batch = Batch(torch.zeros(len(student), 1, 1, 1), {"label": index % K, "index": index})
    return Step(batch, Outputs(student), Outputs(teacher), number=number)


def value_of(student, teacher, **values):
    return sum(built(**values)(step_of(student, teacher)).values())


def has_the_closed_gradient(loss, student, teacher):
    """`(p_student - p_teacher) / B`."""
    gradient = torch.autograd.grad(loss(student, teacher), student)[0]
    return torch.allclose(gradient, (student.softmax(1) - teacher.softmax(1)) / B, rtol=1e-9, atol=1e-12)


def test_soft_is_the_divergence_and_the_teachers_entropy(logits):
    entropy = -(logits[1].softmax(1) * logits[1].log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(value_of(*logits), softened_kl(*logits, 1.0) + entropy)
    assert has_the_closed_gradient(value_of, *logits)


def test_a_mean_over_classes_or_a_temperature_without_its_square_is_not(logits):
    def wrong_mean(student, teacher):
        return F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="none").mean()

    def wrong_scale(student, teacher):
        return F.kl_div((student / 20).log_softmax(1), (teacher / 20).softmax(1), reduction="batchmean")

    assert not any(has_the_closed_gradient(wrong, *logits) for wrong in (wrong_mean, wrong_scale))


def test_confidence_weights_add_up_to_one_and_are_equal_for_equal_confidence(logits):
    weights = confidence_weights(logits[1])
    torch.testing.assert_close(weights.sum(), torch.ones((), dtype=torch.float64))
    largest = [max(row) for row in logits[1].softmax(1).tolist()]
    assert weights.tolist() == pytest.approx([value / sum(largest) for value in largest])
    shuffled = torch.stack([logits[1][0][torch.randperm(K)] for _ in range(B)])
    torch.testing.assert_close(confidence_weights(shuffled), torch.full((B,), 1 / B, dtype=torch.float64))


def test_cwtm_weighs_the_labels_cross_entropy(logits):
    student, teacher = logits[0].detach(), logits[1]
    losses = [-float(student[s].log_softmax(0)[s % K]) for s in range(B)]
    largest = [float(teacher[s].softmax(0).max()) for s in range(B)]
    slow = sum(weight * loss for weight, loss in zip(largest, losses, strict=True)) / sum(largest)
    assert float(value_of(student, teacher, form="cwtm")) == pytest.approx(slow)
    equal = F.cross_entropy(student, torch.arange(B) % K)
    torch.testing.assert_close(value_of(student, torch.zeros_like(teacher), form="cwtm"), equal)


def test_dkpp_keeps_the_largest_in_its_place_and_all_values():
    torch.manual_seed(1)
    p = torch.randn(200, K, dtype=torch.float64).softmax(1)
    q = permuted(p, keys(torch.tensor(3), torch.arange(200), K))
    assert torch.equal(q.argmax(1), p.argmax(1))
    assert torch.equal(q.amax(1), p.amax(1))
    assert torch.equal(q.sort(1).values, p.sort(1).values)
    torch.testing.assert_close(q.sum(1), torch.ones(200, dtype=torch.float64))
    assert not torch.equal(q, p)


def test_dkpp_over_all_orders_spreads_what_is_not_the_largest_evenly():
    p = torch.tensor([[0.1, 0.5, 0.25, 0.15]], dtype=torch.float64)
    orders = torch.tensor(list(itertools.permutations(range(4))))
    mean = permuted(p.expand(len(orders), -1), orders).mean(0)
    torch.testing.assert_close(mean, torch.tensor([1, 3, 1, 1], dtype=torch.float64) / 6)


def test_dkpp_draws_every_order_equally_often():
    p, steps, samples = torch.tensor([0.1, 0.5, 0.25, 0.15]), 40, 300
    counts = Counter(
        tuple(row)
        for number in range(steps)
        for row in permuted(p.expand(samples, -1), keys(torch.tensor(number), torch.arange(samples), 4)).tolist()
    )
    expected = steps * samples / math.factorial(3)
    assert len(counts) == 6
    assert sum((count - expected) ** 2 for count in counts.values()) / expected < 20.5  # 5 degrees: 1 in 1,000


def test_dkpp_shuffles_by_sample_and_step():
    torch.manual_seed(2)
    student, teacher = torch.randn(2, 50, K).unbind()
    objective, index, order = built(form="dkpp"), torch.arange(50), torch.randperm(50)

    def gradient(number, rows):
        chosen = student[rows].requires_grad_(True)
        terms = objective(step_of(chosen, teacher[rows], number, index[rows]))
        return torch.autograd.grad(terms["dkpp"], chosen)[0]

    first = gradient(0, index)
    torch.testing.assert_close(gradient(0, order), first[order])
    assert not torch.allclose(gradient(1, index), first)
    assert len(keys(torch.tensor(0), index, K).unique()) == 50 * K


@pytest.mark.parametrize("form", ["soft", "dkpp"])
def test_standardised_is_that_of_standardised_logits(logits, form):
    student, teacher = (standardise(x) for x in logits)
    ours, plain = built(form=form, standardise=True), built(form=form)
    plain.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(step_of(*logits)), plain(step_of(student, teacher)))


def test_refuses_to_standardise_logits_that_it_does_not_compare():
    with pytest.raises(SpecError) as caught:
        built(form="cwtm", standardise=True)
    assert [problem.pointer for problem in caught.value.problems] == ["/standardise"]


@pytest.mark.parametrize("at", [1, 3])
def test_killed_and_restored_bit_equal(at, engine_inputs, tmp_path):
    spec = {"objectives": [{"name": "born_again", "form": "dkpp"}]}
    for name in ("whole", "killed"):
        shutil.copytree(engine_inputs, tmp_path / name)
    run_whole(job_of(tmp_path / "whole", **spec))
    run_killed(job_of(tmp_path / "killed", **spec), at, tmp_path / "restored")
    assert same_bits(student_of(tmp_path / "whole"), student_of(tmp_path / "restored"))
