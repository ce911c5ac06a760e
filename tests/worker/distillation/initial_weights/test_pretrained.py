"""A library's weights in a network for other classes and channels."""

import pytest
import torch

from tests.worker.distillation.trial import contract_of
from worker.distillation import networks
from worker.distillation.errors import SpecError
from worker.distillation.initial_weights.pretrained import pretrained, resized_positions

NAME = "timm/test_resnet"


def state_of(classes, channels, size=64, name=NAME):
    return networks.build(name, classes, contract_of(channels, size)).state_dict()


def test_everything_but_the_classifier_for_other_classes_is_taken():
    network, given = networks.build(NAME, 7, contract_of(3, 64)), state_of(1000, 3)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = pretrained(network, given, 7, 3, "/student")
    network.load_state_dict(state)
    own = {name for name in state if name.startswith("fc.")}
    assert own == {"fc.weight", "fc.bias"}
    for name, tensor in state.items():
        assert torch.equal(tensor, before[name] if name in own else given[name])


def test_the_classifier_is_taken_too_if_the_classes_are_as_many():
    network, given = networks.build(NAME, 1000, contract_of(3, 64)), state_of(1000, 3)
    state = pretrained(network, given, 1000, 3, "/student")
    assert all(torch.equal(state[name], given[name]) for name in given)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_grey_image_gives_the_same_maps_as_in_rgb(channels):
    given = state_of(10, 3)
    network, rgb = networks.build(NAME, 10, contract_of(channels, 64)), networks.build(NAME, 10, contract_of(3, 64))
    network.load_state_dict(pretrained(network, given, 10, channels, "/student"))
    rgb.load_state_dict(given)
    grey = torch.randn(2, 1, 64, 64)
    answer = network.eval()(grey.expand(-1, channels, -1, -1))
    torch.testing.assert_close(answer, rgb.eval()(grey.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda given: given | {"layer1.0.conv1.weight": torch.zeros(9, 9, 3, 3)}, "(9, 9, 3, 3) instead of"),
        (lambda given: {name: each for name, each in given.items() if name != "bn1.weight"}, "bn1.weight is missing"),
        (lambda given: {}, "more"),
    ],
)
def test_weights_of_another_network_are_refused_with_their_place(change, words):
    network = networks.build(NAME, 7, contract_of(3, 64))
    with pytest.raises(SpecError) as caught:
        pretrained(network, change(state_of(1000, 3)), 7, 3, "/teacher")
    (problem,) = caught.value.problems
    assert problem.pointer == "/teacher/initial_weights" and words in problem.message


@pytest.mark.parametrize("name", ["torchvision/vit_b_32", "timm/test_vit"])
def test_position_embeddings_are_interpolated_to_another_image_size(name):
    given = state_of(7, 3, 160, name)
    network = networks.build(name, 7, contract_of(3, 96))
    state = pretrained(network, given, 7, 3, "/student")
    (key,) = [each for each in given if "pos_embed" in each]
    assert state[key].shape == network.state_dict()[key].shape != given[key].shape
    assert all(torch.equal(state[each], given[each]) for each in given if each != key)


def test_interpolated_position_embeddings_keep_class_tokens_and_follow_the_places_of_patches():
    plane = torch.linspace(0, 1, 8).view(8, 1).expand(8, 8)
    value = torch.cat((torch.full((1, 1, 1), 5.0), plane.reshape(1, 64, 1)), 1)
    resized = resized_positions("pos_embed", torch.zeros(1, 17, 1), value)
    assert resized[0, 0] == 5.0
    rows = resized[0, 1:, 0].view(4, 4)
    torch.testing.assert_close(rows[:, 0], rows[:, 3])
    torch.testing.assert_close(rows[1:3, 0], torch.tensor([2.5, 4.5]) / 7, atol=1e-5, rtol=0)
    assert resized_positions("pos_embed", torch.zeros(1, 17, 2), value) is None
    assert resized_positions("weight", torch.zeros(1, 17, 1), value) is None
