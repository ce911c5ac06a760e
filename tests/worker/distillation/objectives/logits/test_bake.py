"""BAKE: the closed form against the limit of its iteration, and the diagonal with a wrong constant."""

import shutil

import pytest
import torch
import torch.nn.functional as F

from tests.worker.distillation.killed_runs import INPUT, job_of, run_killed, run_whole, same_bits, student_of
from tests.worker.distillation.trial import Trial, objective_of
from worker.distillation.check import check
from worker.distillation.errors import SpecError
from worker.distillation.job import Job
from worker.distillation.objectives.logits.bake import affinity, propagate

N, K = 8, 5


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(N, 6, dtype=torch.float64), torch.randn(N, K, dtype=torch.float64).softmax(1)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_equals_the_limit_of_the_propagation(batch, share):
    features, own = batch
    target, matrix = own, affinity(features)
    for _ in range(200):
        target = share * matrix @ target + (1 - share) * own
    torch.testing.assert_close(propagate(matrix, own, share), target)


def test_targets_are_probabilities(batch):
    features, own = batch
    target = propagate(affinity(features), own, 0.5)
    torch.testing.assert_close(target.sum(1), torch.ones(N, dtype=torch.float64))
    assert target.min() >= 0


def slow_affinity(features):
    cosine = F.cosine_similarity(features[:, None], features[None], dim=2).exp()
    others = cosine * (1 - torch.eye(N))
    return others / others.sum(1, keepdim=True)


def test_affinity_is_a_softmax_over_the_others(batch):
    torch.testing.assert_close(affinity(batch[0]), slow_affinity(batch[0]))


def test_no_image_is_its_own_neighbour(batch):
    assert affinity(batch[0]).diagonal().abs().max() == 0
    unit = F.normalize(batch[0], dim=1)
    wrong = (unit @ unit.mT - 1e-9 * torch.eye(N)).softmax(1)  # as in a published pseudo-code
    assert (wrong.argmax(1) == torch.arange(N)).all()
    assert not torch.allclose(wrong, slow_affinity(batch[0]), atol=0.05)


def test_without_propagation_a_target_is_the_own_prediction(batch):
    features, own = batch
    torch.testing.assert_close(propagate(affinity(features), own, 0.0), own)
    trial = Trial.of("plain", objective_of("bake", propagation=0.0))
    value = trial.objective(trial.step())["bake"]
    value.backward()
    assert value.abs() < 1e-5
    assert all(p.grad is None or p.grad.abs().max() < 1e-6 for p in trial.student.network.parameters())


def test_similar_images_share_their_predictions(batch):
    own, share = batch[1], 0.5
    target = propagate(affinity(torch.ones(N, 6, dtype=torch.float64)), own, share)
    mean = own.mean(0)
    torch.testing.assert_close(target, mean + (own - mean) * (1 - share) / (1 + share / (N - 1)))


def test_loss_is_the_divergence_times_the_squared_temperature():
    trial = Trial.of("residual", objective_of("bake", temperature=3.0, propagation=0.7))
    step = trial.step()
    own = (step.student.logits / 3).softmax(1).detach()
    features = step.student.taps[trial.objective.tap].detach()
    matrix = affinity(features)
    target = 0.3 * torch.linalg.inv(torch.eye(4) - 0.7 * matrix) @ own
    divergence = (target * (target.log() - (step.student.logits / 3).log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(trial.objective(step)["bake"], 9 * divergence)


def test_only_predictions_learn_and_targets_are_constants():
    trial = Trial.of("plain", objective_of("bake"))
    step = trial.step()
    logits = step.student.logits.detach().requires_grad_(True)
    step.student.logits = logits
    trial.objective(step)["bake"].backward()
    own = (logits.detach() / 4).softmax(1)
    target = propagate(affinity(step.student.taps[trial.objective.tap].detach()), own, 0.5)
    torch.testing.assert_close(logits.grad, 4 * (own - target) / 4)  # T (p - q) / B


def alone(folder, **spec) -> Job:
    """A job without a teacher."""
    student = {"network": "lenet5_half", "options": {}, "classes": 4, "input": INPUT}
    objectives = [{"name": "cross_entropy"}, {"name": "bake"}]
    job = job_of(folder, student=student, objectives=objectives, **spec)
    return Job({**job.values, "teacher": None}, folder)


@pytest.mark.parametrize("at", [2, 5])
def test_killed_and_restored_bit_equal_without_a_teacher(at, engine_inputs, tmp_path):
    spec = {"source": {"name": "dataset", "same_class_images": 1, "augmentation": "standard"}}
    shutil.copytree(engine_inputs, tmp_path / "whole")
    events = run_whole(alone(tmp_path / "whole", **spec))
    assert {"metrics", "artifact"} <= {event["event"] for event in events}
    shutil.copytree(engine_inputs, tmp_path / "killed")
    run_killed(alone(tmp_path / "killed", **spec), at, tmp_path / "restored")
    assert same_bits(student_of(tmp_path / "whole"), student_of(tmp_path / "restored"))


def test_a_source_that_shuffles_is_refused(tmp_path):
    with pytest.raises(SpecError) as caught:
        check(alone(tmp_path, source={"name": "dataset", "sampler": "shuffled"}))
    assert [problem.pointer for problem in caught.value.problems] == ["/source/sampler"]
    with pytest.raises(SpecError) as caught:
        Trial.of("plain", objective_of("bake", tap="nothing"))
    assert [problem.pointer for problem in caught.value.problems] == ["/tap"]
