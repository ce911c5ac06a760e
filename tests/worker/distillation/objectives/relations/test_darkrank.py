"""DarkRank: probabilities of permutations, against sums and products written slowly."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from tests.worker.distillation.trial import Trial, objective_of
from worker.distillation.errors import SpecError
from worker.distillation.objectives.relations.darkrank import hard_loss, log_probability, nearest, scores, soft_loss

ORDERS = list(itertools.permutations(range(4)))


@pytest.fixture
def lists():
    torch.manual_seed(0)
    return torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)


def product_form(scores):
    """The Plackett-Luce probability of one order by definition: a product of quotients."""
    probability = 1.0
    for place in range(len(scores)):
        rest = [math.exp(score) for score in scores[place:]]
        probability *= rest[0] / sum(rest)
    return probability


def test_is_the_product_form(lists):
    expected = torch.tensor([product_form(row.tolist()) for row in lists[0]], dtype=torch.float64)
    torch.testing.assert_close(log_probability(lists[0]).exp(), expected)


def test_probabilities_of_all_orders_sum_to_one(lists):
    probability = log_probability(lists[0][:, torch.tensor(ORDERS)]).exp()
    assert probability.shape == (3, 24)
    torch.testing.assert_close(probability.sum(1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("length", [2, 4, 7])
def test_equal_scores_make_every_order_as_likely(length):
    assert hard_loss(torch.zeros(3, length)) == pytest.approx(math.log(math.factorial(length)), rel=1e-6)


def test_soft_is_the_divergence_of_the_product_forms(lists):
    student, teacher = lists
    expected = 0.0
    for mine, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        for order in ORDERS:
            p, q = (product_form([side[place] for place in order]) for side in (mine, theirs))
            expected += q * math.log(q / p) / 3
    assert float(soft_loss(student, teacher)) == pytest.approx(expected)


def test_soft_is_positive_and_zero_for_scores_equal_up_to_a_shift(lists):
    student, teacher = lists
    assert soft_loss(student, teacher) > 0
    assert soft_loss(teacher + torch.randn(3, 1), teacher).abs() < 1e-12


def test_far_candidates_do_not_underflow():
    far = torch.tensor([[0.0, -900.0, -2000.0, -5000.0]], requires_grad=True)
    product = torch.tensor(1.0)
    for place in range(4):
        rest = far.detach()[0, place:].exp()
        product = product * rest[0] / rest.sum()
    assert not product.isfinite()  # a product of exponentials, as in some public code, ends as 0 / 0
    value = hard_loss(far.flip(1))
    value.backward()
    assert value == 5000 + 2000 + 900
    assert far.grad.isfinite().all()


def test_the_query_is_left_out_by_its_place_and_ties_keep_their_order():
    points = torch.tensor([[0.0], [0.0], [1.0], [-1.0], [3.0]])
    distances = (points - points.mT).abs()
    assert nearest(distances, 3).tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [2, 0, 1]]
    # argsort[1:], as in some public code, drops a query's duplicate and ranks the query itself
    assert 1 in distances.argsort(dim=1, stable=True)[1, 1:]
    assert nearest(distances, None).shape == nearest(distances, 9).shape == (5, 4)


def test_is_what_it_is_for_slow_queries():
    torch.manual_seed(1)
    for form in ("soft", "hard"):
        trial = Trial.of("plain", objective_of("darkrank", form=form, length=3), samples=7)
        step = trial.step()
        student, teacher = (F.normalize(x, dim=1) for x in trial.objective.embeddings(step))
        total = torch.tensor(0.0)
        for query in range(7):
            others = [other for other in range(7) if other != query]
            order = sorted(others, key=lambda other, q=query: float((teacher[q] - teacher[other]).norm()))[:3]
            # features of squared length 3.5, squared distances squared
            mine, theirs = (-((3.5 * (x[order] - x[query]).square().sum(1)) ** 2)[None] for x in (student, teacher))
            total = total + (soft_loss(mine, theirs) if form == "soft" else hard_loss(mine)) / 7
        torch.testing.assert_close(trial.objective(step)[form], total, rtol=1e-4, atol=1e-6)


def test_hard_teaches_the_teachers_order():
    torch.manual_seed(2)
    teacher = torch.randn(6, 8)
    student = torch.randn(6, 4, requires_grad=True)
    ranking = nearest(torch.cdist(teacher, teacher), None)
    optimizer = torch.optim.Adam([student], lr=0.05)
    losses = []
    for _ in range(200):
        mine = scores(torch.cdist(student, student).gather(1, ranking), 3.0, 3.0)
        losses.append(hard_loss(mine))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]
    assert (nearest(torch.cdist(student, student), None) == ranking).float().mean() > 0.8


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_duplicates_have_finite_gradients(beta):
    trial = Trial.of("plain", objective_of("darkrank", beta=beta), samples=6)
    image = trial.batch.image.detach().clone()
    image[1] = image[0]
    trial.batch.image = image
    trial.student.eval()
    (value,) = trial.objective(trial.step()).values()
    value.backward()
    gradients = [p.grad for p in trial.student.network.parameters() if p.grad is not None]
    assert value.isfinite() and gradients and all(gradient.isfinite().all() for gradient in gradients)


def test_what_cannot_be_ranked_is_refused():
    for length in (None, 7):
        with pytest.raises(SpecError) as caught:
            Trial.of("plain", objective_of("darkrank", length=length))
        assert [problem.pointer for problem in caught.value.problems] == ["/length"]
        Trial.of("plain", objective_of("darkrank", form="hard", length=length))
    trial = Trial.of("plain", objective_of("darkrank"), samples=2)
    with pytest.raises(SpecError) as caught:
        trial.objective(trial.step())
    assert [problem.pointer for problem in caught.value.problems] == ["/training/batch_size"]


@pytest.mark.parametrize("beta", [1.0, 4.0, 16.0])
def test_is_finite_at_absurd_distances(beta):
    distances = torch.tensor([[1e-20, 1.0, 1e12, 3e38], [3e38, 1e30, 1e9, 0.0]], requires_grad=True)
    student, teacher = scores(distances, 1e4, beta), scores(distances.detach().flip(1), 1e4, beta)
    for loss in (soft_loss(student, teacher), hard_loss(student)):
        (gradient,) = torch.autograd.grad(loss, distances, retain_graph=True)
        assert loss.isfinite()
        assert gradient.isfinite().all()
