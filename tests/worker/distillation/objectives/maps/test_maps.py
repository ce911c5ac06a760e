"""Losses on maps, against their formulas written slowly, and a critic against an analytic answer."""

import math

import pytest
import torch
from torch import nn

from tests.worker.distillation.trial import Trial, objective_of
from worker.distillation.losses.maps import affinity, pixel_cross_entropy, pixel_kl, scale_invariant
from worker.distillation.objectives.maps.holistic import Critic, gradient_penalty
from worker.distillation.step import Batch, Outputs, Step

B, K, H, W = 3, 4, 5, 6


def maps(seed=0, classes=K):
    return torch.randn(B, classes, H, W, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mask_of(ignored=0.3):
    draw = torch.Generator().manual_seed(9)
    mask = torch.randint(K, (B, H, W), generator=draw)
    return torch.where(torch.rand(B, H, W, generator=draw) < ignored, 255, mask).byte()


def probabilities(logits):
    return [math.exp(value) / sum(math.exp(other) for other in logits) for value in logits]


def test_cross_entropy_is_the_mean_over_known_pixels():
    logits, mask, total, count = maps(), mask_of(), 0.0, 0
    for b in range(B):
        for y in range(H):
            for x in range(W):
                if mask[b, y, x] != 255:
                    total -= math.log(probabilities(logits[b, :, y, x].tolist())[mask[b, y, x]])
                    count += 1
    assert 0 < count < B * H * W
    assert float(pixel_cross_entropy(logits, mask)) == pytest.approx(total / count)


def test_cross_entropy_without_a_known_pixel_is_zero_and_has_a_gradient():
    logits = maps().requires_grad_(True)
    loss = pixel_cross_entropy(logits, torch.full((B, H, W), 255, dtype=torch.uint8))
    loss.backward()
    assert float(loss.detach()) == 0 and (logits.grad == 0).all()


def test_weighted_cross_entropy_is_torchs():
    weight = torch.tensor([1.0, 2.0, 0.5, 4.0], dtype=torch.float64)
    logits, mask = maps(), mask_of()
    expected = nn.functional.cross_entropy(logits, mask.long(), weight=weight, ignore_index=255)
    torch.testing.assert_close(pixel_cross_entropy(logits, mask, weight), expected)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_pixel_wise_is_the_mean_divergence_over_pixels(temperature):
    student, teacher, total = maps(1), maps(2), 0.0
    for b in range(B):
        for y in range(H):
            for x in range(W):
                q = probabilities([value / temperature for value in teacher[b, :, y, x].tolist()])
                p = probabilities([value / temperature for value in student[b, :, y, x].tolist()])
                total += sum(one * math.log(one / other) for one, other in zip(q, p, strict=True))
    assert float(pixel_kl(student, teacher, temperature)) == pytest.approx(temperature**2 * total / (B * H * W))
    assert float(pixel_kl(teacher, teacher, temperature)) == pytest.approx(0, abs=1e-12)


def test_affinities_are_cosines_of_pooled_cells():
    features = maps(classes=7)
    found = affinity(features, 2)
    assert found.shape == (B, 4, 4)
    cells = [
        features[:, :, rows, columns].amax((2, 3))
        for rows in (slice(0, 3), slice(2, 5))
        for columns in (slice(0, 3), slice(3, 6))
    ]
    for i, one in enumerate(cells):
        for j, other in enumerate(cells):
            torch.testing.assert_close(found[:, i, j], nn.functional.cosine_similarity(one, other))
    scaled = features * torch.tensor([1.0, 3.0, 0.5]).view(B, 1, 1, 1)
    torch.testing.assert_close(affinity(scaled, 2), found)


def test_the_scale_invariant_error_forgives_a_scale_by_its_balance():
    target = torch.rand(B, H, W, dtype=torch.float64) + 0.5
    known = torch.rand(B, H, W) < 0.7
    depth = torch.where(known, 2 * target, 77.0)
    assert float(scale_invariant(depth, target, known, 1.0)) == pytest.approx(0, abs=1e-12)
    assert float(scale_invariant(depth, target, known, 0.5)) == pytest.approx(0.5 * math.log(2) ** 2)
    known[0] = False  # an image without any known pixel does not count
    assert float(scale_invariant(depth, target, known, 0.0)) == pytest.approx(math.log(2) ** 2)


@pytest.mark.parametrize(("norm", "expected"), [("l1", 1.5), ("l2", 2.5)])
def test_depth_error_reads_known_pixels_only(norm, expected):
    depth = torch.tensor([[[[3.0, 5.0], [9.0, 9.0]]]])
    batch = Batch(torch.zeros(1, 3, 2, 2), {"depth": torch.tensor([[[2.0, 3.0], [0.0, 0.0]]])})
    loss = objective_of("depth_error", norm=norm)(Step(batch, Outputs(depth)))["depth_error"]
    assert float(loss) == pytest.approx(expected)
    batch.fields["depth"] = torch.zeros(1, 2, 2)
    assert float(objective_of("depth_error", norm=norm)(Step(batch, Outputs(depth)))["depth_error"]) == 0


def test_depth_error_of_the_teacher_reads_every_pixel_and_no_field():
    step = Step(
        Batch(torch.zeros(1, 3, 2, 2)), Outputs(torch.full((1, 1, 2, 2), 3.0)), Outputs(torch.full((1, 1, 2, 2), 1.0))
    )
    assert float(objective_of("depth_error", target="teacher", norm="l2")(step)["depth_error"]) == 4.0


class Linear(nn.Module):
    """A critic whose gradient is its weight everywhere."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return (x * self.weight).flatten(1).sum(1)


def test_the_gradient_penalty_of_a_linear_critic_is_that_of_its_norm():
    weight = torch.randn(2, 4, 4)
    weight = weight / weight.norm()
    one, other = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    assert gradient_penalty(Linear(weight), one, other, torch.rand(3)).item() == pytest.approx(0, abs=1e-10)
    penalty = gradient_penalty(critic := Linear(3 * weight), one, other, torch.rand(3))
    assert penalty.item() == pytest.approx(4.0, rel=1e-5)
    penalty.backward()
    assert critic.weight.grad.abs().max() > 0  # the gradient of a gradient


def test_a_critic_scores_samples_alone():
    torch.manual_seed(0)
    critic, x = Critic(5, 6, 3), torch.randn(3, 5, 24, 32)
    torch.testing.assert_close(critic(x)[1:2], critic(x[1:2]))
    assert critic(x).shape == (3,)


def test_the_critic_and_the_student_pull_in_opposite_directions_and_only_on_their_own_weights():
    trial = Trial.of("plain", objective_of("holistic", penalty=0.0))
    step = trial.step()
    of_critic = trial.objective.adversary_loss(
        Step(step.batch, step.student.detached(), step.teacher.detached(), number=4)
    )
    of_student = trial.objective(step)["holistic"]
    scores = trial.objective.critic(trial.objective.read(step.teacher, step)).mean()
    torch.testing.assert_close(of_critic, -of_student - scores)
    of_student.backward()
    assert all(parameter.grad is None for parameter in trial.objective.critic.parameters())
    assert any(parameter.grad is not None for parameter in trial.student.network.parameters())


def test_the_critic_reads_probabilities_so_that_a_shift_of_logits_changes_nothing():
    trial = Trial.of("plain", objective_of("holistic"))
    step = trial.step()
    shifted = Outputs(step.student.logits + 7.0)
    torch.testing.assert_close(trial.objective.read(shifted, step), trial.objective.read(step.student, step))


def test_pair_wise_compares_the_finest_features_by_default():
    trial = Trial.of("plain", objective_of("pair_wise"))
    (term,) = trial.objective(trial.step())
    assert term == "fpn.output.0~fpn.output.0"
