"""Networks whose layers differ in kind are read, written as lists of layers, and found from one of a single kind."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from worker.distillation.contract_check.normalisations import Normalisation
from worker.distillation.networks.layer_list import build, parse, to_json
from worker.distillation.recovery.chain import read_chain
from worker.distillation.recovery.changes import calibrated, changed, lower_by, refined
from worker.distillation.recovery.geometry import Geometry, Placement
from worker.distillation.recovery.layer_list import as_layer_list
from worker.distillation.recovery.reading import Reading
from worker.distillation.recovery.recovered import Scored
from worker.distillation.recovery.search import least_accuracy

WAY = Normalisation("0 to 1", (0.0,), (1.0,))
SAME = Placement(1, 1, (2, 2))
HALVING = (nn.MaxPool2d(2), nn.MaxPool2d(2))
IMAGE = torch.randint(0, 256, (1024, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def network(*between, poolings=HALVING):
    """Two convolutions and two linear layers, with what follows the first three of them."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), *between[0], poolings[0], nn.Conv2d(8, 8, 3, padding=1), *between[1], poolings[1],
            nn.Flatten(), nn.Linear(32, 16), *between[2], nn.Linear(16, 5),
        )  # fmt: skip
        for parameter in layers.parameters():
            parameter.data.mul_(3 if parameter.ndim > 1 else 1)
    return layers.eval()


RELU = ([nn.ReLU()],) * 3
KINDS = {
    "an activation is missing": (network([], [nn.ReLU()], [nn.ReLU()]), {"activations": ((0, "none"),)}),
    "other activations": (
        network([nn.Tanh()], [nn.Tanh()], [nn.ReLU()]), {"activation": "tanh", "activations": ((2, "relu"),)}
    ),
    "a slope": (network(*([nn.LeakyReLU(0.2)],) * 3), {"activation": "leaky_relu_0.2"}),
    "silu": (network(*([nn.SiLU()],) * 3), {"activation": "silu"}),
    "two kinds of pooling": (network(*RELU, poolings=(nn.MaxPool2d(2), nn.AvgPool2d(2))), {"poolings": ((1, "avg"),)}),
    "a padded pooling": (
        network(*RELU, poolings=(nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2))),
        {"geometry": Geometry((8, 8), (Placement(1, 1, (3, 2, 1)), SAME))},
    ),
    "groups": (network([nn.GroupNorm(4, 8), nn.ReLU()], *RELU[:2]), {"groups": 4}),
    "a norm of vectors": (
        network([nn.GroupNorm(2, 8), nn.ReLU()], [nn.ReLU()], [nn.LayerNorm(16), nn.ReLU()]), {"groups": 2}
    ),
    "instance norm": (network([nn.InstanceNorm2d(8, affine=True), nn.ReLU()], *RELU[:2]), {"groups": 0}),
    "prelu": (network([nn.PReLU()], [nn.ReLU()], [nn.PReLU()]), {}),
}  # fmt: skip
PLAIN = Reading(Geometry((8, 8), (SAME, SAME)), "relu", "max", WAY)


@pytest.mark.parametrize("kind", KINDS)
def test_readings_and_their_lists_of_layers_answer_as_the_network(kind):
    trained, changes = KINDS[kind]
    chain = read_chain(trained.state_dict(), 1)
    reading = replace(PLAIN, **changes)
    layers, state, contract = as_layer_list(reading, chain, 1)
    again = build(parse(to_json(layers)), 5, contract).eval()
    again.load_state_dict(state)
    with torch.no_grad():
        expected = trained(WAY.apply(IMAGE[:4]))
        torch.testing.assert_close(reading.logits(chain, IMAGE[:4]), expected)
        torch.testing.assert_close(again(WAY.apply(IMAGE[:4])), expected)


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"prelu", "a norm of vectors"}))
def test_changes_that_make_a_reading_clearly_better_are_found(kind):
    """The labels are the answers of the network, each about as often as others."""
    trained, _ = KINDS[kind]
    chain = read_chain(trained.state_dict(), 1)

    def logits(reading, images):
        return reading.logits(chain, IMAGE[:images])

    with torch.no_grad():
        label = (trained(WAY.apply(IMAGE)) - trained(WAY.apply(IMAGE)).mean(0)).argmax(1)
        mean = trained(WAY.apply(IMAGE)).mean(0)

        def score(reading, images):
            answer = logits(reading, images) - mean
            right = answer.argmax(1) == label[:images]
            return Scored(reading, right, 0.0, calibrated(answer, label[:images]))

        found = refined(score(PLAIN, 64), chain, score, lambda: True)
        torch.testing.assert_close(logits(found.reading, 8), trained(WAY.apply(IMAGE[:8])))
        assert refined(score(found.reading, 64), chain, score, lambda: True).reading == found.reading


def test_without_time_the_reading_stays_as_it_is():
    trained, _ = KINDS["silu"]
    chain = read_chain(trained.state_dict(), 1)
    scored = Scored(PLAIN, torch.ones(64), 0.0, torch.ones(64))
    assert refined(scored, chain, lambda reading, images: scored, lambda: False) is scored


def test_each_change_is_made_once():
    found = list(changed(PLAIN, read_chain(KINDS["groups"][0].state_dict(), 1)))
    assert len(set(found)) == len(found) and PLAIN not in found


def test_losses_do_not_depend_on_the_scale_of_the_logits():
    draw = torch.Generator().manual_seed(0)
    logits, label = torch.randn(500, 4, generator=draw), torch.randint(0, 4, (500,), generator=draw)
    logits[torch.arange(500), label] += 1
    for scale in (0.5, 4):
        torch.testing.assert_close(calibrated(logits * scale, label), calibrated(logits, label), rtol=0.02, atol=0.02)
    assert float(calibrated(logits, label).mean()) <= float(F.cross_entropy(logits, label)) + 1e-6


def test_losses_are_compared_in_standard_errors():
    losses = torch.tensor([1.0, 3.0, 1.0, 3.0])
    assert lower_by(losses, losses) == 0
    assert lower_by(torch.zeros(4), losses) == pytest.approx(2 / (losses.std() / 2))


def test_a_network_has_to_be_better_than_a_guess_also_where_one_class_is_common():
    assert least_accuracy(0.1) == pytest.approx(0.3)
    assert least_accuracy(0.74) == pytest.approx(0.87)
