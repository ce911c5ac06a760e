"""Relational knowledge distillation against its definition and its invariances."""

import itertools

import pytest
import torch

from tests.worker.distillation.trial import Trial, objective_of
from worker.distillation.errors import SpecError
from worker.distillation.objectives.relations.relational import angle_loss, angles, distance_loss, relative_distances

B, S, T = 5, 3, 4


@pytest.fixture
def sets():
    torch.manual_seed(0)
    return torch.randn(B, S, dtype=torch.float64), torch.randn(B, T, dtype=torch.float64)


def huber(x, y):
    gap = abs(x - y)
    return 0.5 * gap**2 if gap <= 1 else gap - 0.5


def slow_distances(x):
    pairs = list(itertools.product(range(B), repeat=2))
    mean = sum(float((x[i] - x[j]).norm()) for i, j in pairs if i != j) / (B * (B - 1))
    return [float((x[i] - x[j]).norm()) / mean for i, j in pairs]


def slow_angles(x):
    def cosine(i, j, k):
        one, other = x[i] - x[j], x[k] - x[j]
        return 0.0 if j in (i, k) else float(one @ other / (one.norm() * other.norm()))

    return [cosine(i, j, k) for i, j, k in itertools.product(range(B), repeat=3)]


@pytest.mark.parametrize(("loss", "slow"), [(distance_loss, slow_distances), (angle_loss, slow_angles)])
def test_is_the_slow_formula(loss, slow, sets):
    student, teacher = sets
    student[0] *= 9  # so that some gaps are beyond the threshold
    values = list(map(slow, (student, teacher)))
    gaps = [huber(x, y) for x, y in zip(*values, strict=True)]
    assert max(gaps) > 0.5
    torch.testing.assert_close(loss(student, teacher), torch.tensor(sum(gaps) / len(gaps), dtype=torch.float64))


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
def test_does_not_see_a_shift_a_turn_or_a_scale(loss, sets):
    _, teacher = sets
    turn = torch.linalg.qr(torch.randn(T, T, dtype=torch.float64)).Q
    assert loss(3 * teacher @ turn + 1, teacher) < 1e-24
    assert loss(teacher * torch.tensor([1, 1, 1, 4.0]), teacher) > 1e-3


def test_angles_and_distances_of_a_right_triangle():
    corners = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    cosine = angles(corners)
    for corner, value in enumerate((0, 3 / 5, 4 / 5)):
        one, other = {0, 1, 2} - {corner}
        assert cosine[corner, one, other] == pytest.approx(value, abs=1e-12)
        assert cosine[corner, one, one] == pytest.approx(1)
        assert cosine[corner, corner].abs().max() == 0
    assert relative_distances(corners)[1, 2] == pytest.approx(5 / 4)


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
def test_equal_samples_and_a_dead_network_have_finite_gradients(loss, sets):
    _, teacher = sets
    for student in (torch.zeros(B, S), torch.randn(B, S)[torch.tensor([0, 0, 1, 1, 2])]):
        student.requires_grad_(True)
        value = loss(student, teacher.float())
        value.backward()
        assert value.isfinite()
        assert student.grad.isfinite().all()
        assert student.grad.abs().max() < 10


def test_factors_multiply_their_terms_and_zero_leaves_one_out():
    trial = Trial.of("plain", objective_of("relational"))
    step = trial.step()
    both = trial.objective(step)
    for name, other in (("distance", "angle"), ("angle", "distance")):
        alone = objective_of("relational", **{name: 2.0, other: 0.0})
        alone.tap = trial.objective.tap
        (value,) = alone(step).values()
        factor = getattr(trial.objective.settings, name)
        torch.testing.assert_close(value / 2, both[name] / factor)


def test_nothing_to_measure_is_refused():
    with pytest.raises(SpecError) as caught:
        Trial.of("plain", objective_of("relational", distance=0.0, angle=0.0))
    assert [problem.pointer for problem in caught.value.problems] == ["/distance"]
    trial = Trial.of("plain", objective_of("relational"), samples=2)
    with pytest.raises(SpecError) as caught:
        trial.objective(trial.step())
    assert [problem.pointer for problem in caught.value.problems] == ["/training/batch_size"]


@pytest.mark.parametrize(("tap", "pointer"), [(["nothing", "fc2"], "/tap/0"), (["fc2", "nothing"], "/tap/1")])
def test_taps_that_are_not_there_are_refused(tap, pointer):
    with pytest.raises(SpecError) as caught:
        Trial.of("plain", objective_of("relational", tap=tap))
    assert [problem.pointer for problem in caught.value.problems] == [pointer]


def test_a_map_is_read_as_its_mean():
    trial = Trial.of("residual", objective_of("relational", tap=["layer3", "layer3"]))
    step = trial.step()
    student, teacher = trial.objective.embeddings(step)
    torch.testing.assert_close(student, step.student.taps["layer3"].mean((2, 3)))
    assert len(teacher) == 4 and teacher.ndim == 2
    assert sum(trial.objective(step).values()).isfinite()
