"""Procedural images for a teacher: the contract's range, the shares of families, and the refinement."""

import pytest
import torch
from torch import nn

from worker.distillation.contract import InputContract
from worker.distillation.synthesis import estimate as estimates
from worker.distillation.synthesis.batch_norm_statistics import BatchStatistics
from worker.distillation.synthesis.estimate import Estimate, Estimator
from worker.distillation.synthesis.procedural_images import FAMILIES, GROUNDED, ProceduralImages, Refinement

CPU = torch.device("cpu")


def contract(mean: float = 0.1307, std: float = 0.3081) -> InputContract:
    return InputContract(1, 12, 12, (mean,), (std,))


def network(scale: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Flatten(), nn.Linear(144, 4)).requires_grad_(False)
    made[1].weight *= scale
    return made


def images(teacher: nn.Module | None = None, **values: float) -> ProceduralImages:
    return ProceduralImages(teacher or network(), contract(**values), 4, CPU)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("mean", "kinds"),
    [
        (0.13, {"strokes"}),
        (0.9, {"strokes_inverted"}),
        (0.5, {"strokes", "strokes_inverted"}),
        (0.0, {"strokes", "strokes_inverted"}),
    ],
)
def test_the_mean_of_the_contract_says_what_is_bright(mean, kinds):
    found = images(mean=mean).kinds
    assert kinds == {"strokes", "strokes_inverted"} & set(found)
    assert len(found) == len(FAMILIES) - len(GROUNDED) + len(kinds) * len(GROUNDED)
    assert {"noise", "dead_leaves"} < set(found) and "noise_inverted" not in found


def test_images_are_normalised_and_inverted_ones_are_the_rest_to_white():
    made = images(mean=0.5, std=0.25)
    plain, inverted = (made.draw(kind, 8, random()) for kind in ("strokes", "strokes_inverted"))
    assert torch.allclose(plain, -inverted, atol=1e-6)
    assert plain.min() >= -2 and plain.max() <= 2


def test_shares_prefer_families_whose_predictions_vary_and_spread():
    made = images(lambda x: torch.stack([x.amax((1, 2, 3)) * k for k in (-1.0, 1.0)], dim=1))
    shares = made.weights(64, random())
    assert shares.sum() == pytest.approx(1) and (shares > 0).all()
    alike = images(lambda x: torch.zeros(len(x), 4))
    assert torch.allclose(alike.weights(16, random()), torch.full((len(FAMILIES),), 1 / len(FAMILIES)))


@pytest.mark.parametrize(
    ("sign", "kept", "left_out"), [(1, "strokes", "strokes_inverted"), (-1, "strokes_inverted", "strokes")]
)
def test_the_ground_on_which_the_teacher_tells_fewer_classes_apart_gets_no_share(sign, kept, left_out):
    def halves(x: torch.Tensor) -> torch.Tensor:
        """The class is where the light is on a dark ground; on a bright one it is always the same."""
        light = torch.stack([part.mean((1, 2, 3)) for part in (sign * x).split(6, dim=3)], dim=1)
        ground = (sign * x).flatten(1).median(dim=1).values > 0
        return torch.where(ground[:, None], torch.tensor([9.0, 0.0]), 20 * light)

    made = images(halves, mean=0.5, std=0.5)
    shares = dict(zip(made.kinds, made.weights(64, random()).tolist(), strict=True))
    assert shares[kept] > 0 and shares[left_out] == 0
    both = images(lambda x: 20 * torch.stack([x[..., :6].mean((1, 2, 3)), x[..., 6:].mean((1, 2, 3))], dim=1), mean=0.5)
    assert (both.weights(64, random()) > 0).all()


def test_refined_images_stay_in_range_move_as_far_as_asked_and_towards_their_class():
    made = images(network(5.0))
    image = torch.full((16, 1, 12, 12), 0.5)
    target, move = torch.arange(16) % 4, torch.linspace(0, 0.3, 16)
    refined = made.refined(image, target, move, steps=10)
    assert (refined >= made.low).all() and (refined <= made.high).all()
    moved = (refined - image).square().mean(dim=(1, 2, 3)).sqrt() / float(made.high - made.low)
    assert (moved <= move + 1e-5).all() and torch.allclose(moved[:4], move[:4], atol=2e-3)
    before, after = (made.teacher(each).log_softmax(1)[range(16), target] for each in (image, refined))
    assert (after[1:] > before[1:]).all()


def test_refinement_may_also_approach_the_teachers_statistics():
    torch.manual_seed(0)
    body = [nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(600, 4)]
    teacher = nn.Sequential(*body).eval().requires_grad_(False)
    teacher[1].running_mean[:] = 0.5
    made = images(teacher)
    image, target, move = torch.rand(32, 1, 12, 12, generator=random()), torch.arange(32) % 4, torch.full((32,), 0.2)
    away = []
    for weight in (0.0, 3.0):
        refined = made.refined(image, target, move, 10, weight)
        statistics = BatchStatistics()
        with statistics.reading():
            teacher(refined)
        away.append(statistics.distance().item())
    assert away[1] < 0.95 * away[0]
    plain = images(network(5.0))
    assert torch.equal(plain.refined(image, target, move, 4, 3.0), plain.refined(image, target, move, 4))


def test_only_the_fraction_is_refined():
    made, shares = images(), torch.full((len(FAMILIES),), 1 / len(FAMILIES))
    plain, refined = (made.mixed(20, shares, Refinement(fraction=each), random()) for each in (0.0, 0.5))
    same = [torch.equal(*pair) for pair in zip(plain, refined, strict=True)]
    assert not any(same[:9]) and all(same[10:])


def test_the_estimate_of_the_teacher_itself_is_1_and_of_another_network_less():
    teacher = network(40.0)
    estimator = Estimator(teacher, contract(), 4, 0, CPU)
    own = estimator.estimate(teacher)
    assert own is not None and own.agreement == 1 and own.images >= 30 and own.warning == own.note == ""
    torch.manual_seed(3)
    other = estimator.estimate(nn.Sequential(nn.Flatten(), nn.Linear(144, 4)))
    assert other is not None and other.agreement < 0.7 and f"{other.agreement:.0%}" in other.warning


def test_there_is_no_estimate_if_the_teacher_is_never_confident():
    assert Estimator(lambda x: 0.01 * network()(x), contract(), 4, 0, CPU).estimate(network()) is None


def test_the_bounds_of_warning_and_note():
    assert Estimate(0.84, 100).warning and not Estimate(0.84, 100).note
    assert Estimate(0.87, 100).note and not Estimate(0.87, 100).warning
    assert not Estimate(0.95, 100).note and estimates.POOR < estimates.FAIR < estimates.GOOD
