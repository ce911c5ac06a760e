"""Networks described layer by layer are the ones that the same layers written by hand are."""

import pytest
import torch
from torch import nn

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError
from worker.distillation.initial_weights.slices import fit_followed
from worker.distillation.introspection.channel_following import follow
from worker.distillation.networks.layer_list import build, parse, to_json

RGB = InputContract(3, 16, 16, (0.0,) * 3, (1.0,) * 3)
RESIDUAL = [
    {"conv": 8, "padding": 1, "bias": False, "name": "stem.0"},
    {"norm": "batch", "name": "stem.1"},
    {"activation": "relu", "name": "start"},
    {"conv": 12, "padding": 1, "stride": 2},
    {"conv": 12, "kernel": 1, "stride": 2, "input": "start", "name": "shortcut"},
    {"add": "conv1"},
    {"activation": "tanh"},
    {"concat": "shortcut"},
    {"pool": "max"},
    {"flatten": True},
    {"dropout": 0.25},
    {"linear": 20},
    {"linear": None},
]


def by_hand(network, x):
    stem, layers = network.get_submodule("stem"), dict(network.named_children())
    start = torch.relu(stem.get_submodule("1")(stem.get_submodule("0")(x)))
    long, short = layers["conv1"](start), layers["shortcut"](start)
    both = torch.cat((torch.tanh(short + long), short), dim=1)
    return layers["linear2"](layers["linear1"](nn.functional.max_pool2d(both, 2).flatten(1)))


def test_runs_the_layers_as_written_with_skips_and_branches():
    network = build(parse(RESIDUAL), 5, RGB).eval()
    x = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(network(x), by_hand(network, x))
    assert next(iter(network.state_dict())) == "stem.0.weight"


def test_json_comes_back_as_it_was_without_defaults():
    assert to_json(parse(RESIDUAL)) == RESIDUAL
    assert to_json(parse([{"conv": 4, "kernel": 3, "bias": True}])) == [{"conv": 4}]


def test_is_a_network_of_the_catalogue():
    network = networks.build("layers", 5, RGB, {"layers": RESIDUAL})
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 5)


def test_a_narrower_list_is_a_slice():
    wide, narrow = (
        [{"conv": n, "padding": 1}, {"pool": "global"}, {"flatten": True}, {"linear": None}] for n in (8, 4)
    )
    teacher, student = build(parse(wide), 5, RGB), build(parse(narrow), 5, RGB)
    fit_followed(follow(student, RGB.blank(torch.device("cpu"))), student.state_dict(), teacher.state_dict())


@pytest.mark.parametrize(
    ("layers", "pointer", "words"),
    [
        ([], "", "1 to 500"),
        ([{"conv": 4, "linear": 4}], "/0", "exactly one"),
        ([{"conv": 0}], "/0/conv", "at least 1"),
        ([{"conv": 4, "size": 4}], "/0/size", "unknown"),
        ([{"conv": 4}, {"linear": None}], "/1", "flatten"),
        ([{"flatten": True}, {"conv": 4}], "/1", "feature map"),
        ([{"conv": 4, "kernel": 20}], "/0", "Kernel size"),
        ([{"conv": 4}, {"add": "image"}], "/1", "cannot add"),
        ([{"add": "later"}, {"conv": 4, "name": "later"}], "/0", "no earlier layer"),
        ([{"conv": 4, "name": "a"}, {"conv": 4, "name": "a"}], "/1/name", "taken"),
        ([{"conv": 4, "name": "a"}, {"conv": 4, "name": "a.b"}], "/1/name", "inside"),
        ([{"conv": 4, "name": "forward"}], "/0/name", "word of PyTorch"),
        ([{"conv": 4, "name": "x.training"}], "/0/name", "word of PyTorch"),
        ([{"conv": 4, "name": "a..b"}], "/0/name", "letters"),
        ([{"flatten": True}, {"linear": 6}], "/1", "not (5,)"),
    ],
)
def test_says_which_layer_is_wrong(layers, pointer, words):
    with pytest.raises(SpecError) as refused:
        build(parse(layers), 5, RGB)
    problem = refused.value.problems[0]
    assert problem.pointer == f"/options/layers{pointer}"
    assert words in problem.message
