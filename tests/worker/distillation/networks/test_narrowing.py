"""Networks with the structure of another and fewer channels."""

import pytest
import torch

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.initial_weights.slices import fit, sliced
from worker.distillation.introspection.channel_following import follow
from worker.distillation.introspection.channel_freedom import Freedom
from worker.distillation.networks.narrowing import narrowed

RGB = InputContract(3, 64, 64, (0.5,) * 3, (0.25,) * 3)
FAMILIES = [name for name, network in networks.named().items() if network.widths or network.as_family[0]]


def built(name, options=None, classes=10):
    with torch.device("meta"):
        return networks.build(name, classes, RGB, options or {})


def sizes(network):
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("name", [name for name in FAMILIES if networks.named()[name].as_family[0]])
def test_a_network_of_fixed_widths_is_one_of_its_family(name):
    family, options = networks.named()[name].as_family
    assert sizes(built(name)) == sizes(built(family, options))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_narrower_network_of_a_family_is_a_slice_of_it(name):
    family, options = narrowed(name, {}, 0.5, 10, RGB)
    student, teacher = built(family, options), built(name)
    fit(student, RGB.blank(torch.device("meta")), teacher.state_dict())
    fewer, more = (sum(tensor.numel() for tensor in network.parameters()) for network in (student, teacher))
    assert 0.15 * more < fewer < 0.6 * more


def test_widths_are_rounded_and_other_options_stay():
    given = {"first": 5, "second": 1, "activation": "tanh", "third_linear": True}
    name, options = narrowed("lenet", given, 0.5, 10, RGB)
    widths = {"first": 3, "second": 1, "third": 30, "hidden": 21}
    assert (name, options) == ("lenet", given | widths | {"pooling": "max", "batch_norm": False, "padding": 0})
    assert narrowed("mlp", {"hidden": [30, 10]}, 0.3, 10, RGB)[1]["hidden"] == [9, 3]
    assert narrowed("resnet_cifar", {"width": 1}, 0.5, 10, RGB) is None
    assert narrowed("torchvision/resnet18", {}, 0.5, 10, RGB) is None


LAYERS = [
    {"conv": 12, "name": "stem", "padding": 1}, {"norm": "batch"}, {"activation": "relu"},
    {"conv": 12, "groups": 12, "padding": 1}, {"norm": "group", "groups": 4}, {"activation": "prelu"},
    {"conv": 12, "kernel": 1}, {"add": "stem", "name": "sum"},
    {"conv": 7, "kernel": 1}, {"concat": "sum", "name": "both"}, {"norm": "instance"}, {"activation": "relu"},
    {"conv": 8, "groups": 2, "kernel": 1, "input": "sum"}, {"concat": "both"},
    {"pool": "adaptive", "size": 2}, {"flatten": True}, {"linear": 9}, {"norm": "batch"}, {"linear": None},
]  # fmt: skip


def test_a_list_of_layers_stays_consistent_and_its_slices_begin_as_the_teachers_channels():
    torch.manual_seed(0)
    name, options = narrowed("layers", {"layers": LAYERS}, 0.5, 10, RGB)
    fewer = [layer.get("conv") or layer.get("linear") for layer in options["layers"]]
    # what a convolution of two groups reads and gives stays as it is: the sum, and so the stem and its depthwise layer
    assert [count for count in fewer if count] == [12, 12, 12, 4, 8, 5]
    teacher, student = networks.build("layers", 10, RGB, {"layers": LAYERS}), networks.build(name, 10, RGB, options)
    state = sliced(student, RGB.blank(torch.device("cpu")), teacher.state_dict(), noise=0.0)
    student.load_state_dict(state)
    assert student.eval()(torch.randn(2, 3, 64, 64)).shape == (2, 10)


def test_depthwise_and_grouped_norms_follow_their_channels():
    layers = [layer for layer in LAYERS[:8] if layer] + [{"pool": "global"}, {"flatten": True}, {"linear": None}]
    _, options = narrowed("layers", {"layers": layers}, 0.6, 10, RGB)
    convs = [layer for layer in options["layers"] if "conv" in layer]
    assert [layer["conv"] for layer in convs] == [8, 8, 8]  # of 7.2, the nearest multiple of the four groups
    assert convs[1]["groups"] == 8
    networks.build("layers", 10, RGB, options)


def test_channels_that_cannot_be_followed_are_held():
    class Shuffled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = torch.nn.Conv2d(3, 8, 1), torch.nn.Conv2d(8, 8, 1)
            self.fc = torch.nn.Linear(8, 10)

        def forward(self, x):
            shuffled = torch.nn.functional.channel_shuffle(self.one(x), 2)
            return self.fc(self.two(shuffled).mean((2, 3)))

    watch = follow(Shuffled(), RGB.blank(torch.device("cpu")), Freedom)
    counts = watch.narrower(0.5)
    found = {name: counts[axes[0][0][0].root] for name, axes in watch.axes.items() if axes[0]}
    assert (found["one.weight"], found["two.weight"], found["fc.weight"]) == (8, 4, 10)
    assert watch.holding == {"channel_shuffle": 8}
