"""Initial weights by slicing the teacher."""

import json
import math
import shutil

import pytest
import torch
from safetensors import safe_open
from torch import nn

from tests.worker.distillation.killed_runs import job_of, run_whole
from tests.worker.distillation.trial import contract_of
from worker.distillation import networks
from worker.distillation.check import check
from worker.distillation.errors import SpecError
from worker.distillation.initial_weights.slices import fit, sliced
from worker.distillation.introspection.channel_following import follow

GREY, COLOUR = contract_of(1, 16), contract_of(3, 16)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def build(name, contract=GREY, classes=4, **options):
    return networks.build(name, classes, contract, options)


def slice_of(teacher, student, contract=GREY, noise=0.0):
    return sliced(student, contract.blank(torch.device("cpu")), teacher.state_dict(), noise)


def strongest(weight, count):
    """Rows of the largest norm, in order, by a loop."""
    norms = [float(row.norm()) for row in weight]
    return sorted(sorted(range(len(norms)), key=lambda row: -norms[row])[:count])


def test_a_perceptron_keeps_its_units_of_largest_norm_and_their_outgoing_weights():
    teacher, student = build("mlp", hidden=[8, 6]), build("mlp", hidden=[3, 2])
    weights, state = teacher.state_dict(), slice_of(teacher, student)
    first, second = strongest(weights["fc1.weight"], 3), strongest(weights["fc2.weight"], 2)
    assert torch.equal(state["fc1.weight"], weights["fc1.weight"][first])
    assert torch.equal(state["fc1.bias"], weights["fc1.bias"][first])
    torch.testing.assert_close(state["fc2.weight"], weights["fc2.weight"][second][:, first] * math.sqrt(8 / 3))
    torch.testing.assert_close(state["fc3.weight"], weights["fc3.weight"][:, second] * math.sqrt(6 / 2))
    assert torch.equal(state["fc3.bias"], weights["fc3.bias"])


class Flattening(nn.Module):
    """A convolution, and a linear layer on its flattened map of 2x2."""

    def __init__(self, width):
        super().__init__()
        self.conv, self.pool, self.fc = nn.Conv2d(1, width, 3), nn.AdaptiveMaxPool2d(2), nn.Linear(4 * width, 5)

    def forward(self, x):
        return self.fc(self.pool(self.conv(x)).flatten(1))


def test_a_layer_of_one_weight_has_no_noise():
    teacher, student = build("mlp", contract_of(1, 1), 1, hidden=[2]), build("mlp", contract_of(1, 1), 1, hidden=[1])
    for value in slice_of(teacher, student, contract_of(1, 1), noise=0.1).values():
        assert value.isfinite().all()


def test_all_pixels_of_a_channel_are_kept():
    teacher, student = Flattening(6), Flattening(2)
    state, kept = slice_of(teacher, student), strongest(teacher.conv.weight.detach(), 2)
    columns = [4 * channel + pixel for channel in kept for pixel in range(4)]
    torch.testing.assert_close(state["fc.weight"], teacher.fc.weight[:, columns] * math.sqrt(3))


def test_a_student_as_wide_as_its_teacher_gets_the_teachers_weights():
    teacher, student = build("resnet14_cifar", COLOUR), build("resnet14_cifar", COLOUR)
    teacher.train()(torch.randn(8, 3, 16, 16))  # statistics of its own
    student.load_state_dict(slice_of(teacher, student, COLOUR))
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(student.eval()(x), teacher.eval()(x))


def test_both_sides_of_an_addition_keep_the_same_channels():
    torch.manual_seed(1)
    student = build("resnet14_cifar", COLOUR)
    found = fit(student, COLOUR.blank(torch.device("cpu")), build("resnet20_cifar", COLOUR).state_dict())
    group = {name: axes[0][0][0].root for name, axes in found.axes.items() if name.endswith("weight")}
    assert group["layer2.0.conv2.weight"] is group["layer2.0.downsample.0.weight"] is group["layer2.1.bn2.weight"]
    assert group["conv1.weight"] is group["layer1.0.conv2.weight"] is group["layer1.1.conv2.weight"]
    assert group["layer2.0.conv1.weight"] is not group["layer2.0.conv2.weight"]


@pytest.mark.parametrize(
    ("teacher", "student", "contract"),
    [
        ("lenet5", "lenet5_half", GREY),
        ("resnet20_cifar", "resnet8_cifar", COLOUR),
        ("timm/mobilenetv2_140", "timm/mobilenetv2_100", contract_of(3, 32)),
        ("torchvision/densenet121", "torchvision/densenet121", contract_of(3, 32)),
        ("torchvision/shufflenet_v2_x0_5", "torchvision/shufflenet_v2_x0_5", contract_of(3, 32)),
    ],
)
def test_networks_of_a_family_are_slices_of_each_other(teacher, student, contract):
    with torch.device("meta"):
        wide, narrow = build(teacher, contract), build(student, contract)
    assert (
        fit(narrow, contract.blank(torch.device("meta")), wide.state_dict()).axes.keys() == narrow.state_dict().keys()
    )


@pytest.mark.parametrize(
    ("teacher", "student", "words"),
    [
        ("lenet5_half", "lenet5", r"'conv1' does not fit, because it has 6 channels and the teacher's has only 3"),
        ("resnet8_cifar", "resnet14_cifar", r"'layer1.1.conv1' does not fit, because the teacher has no layer"),
        ("resnet8x4_cifar", "resnet8_cifar", r"the teacher has 64 channels there instead of 32"),
        (
            "torchvision/shufflenet_v2_x1_0",
            "torchvision/shufflenet_v2_x0_5",
            r"comes from `\w+`, whose channels cannot",
        ),
        ("lenet5", "mlp", r"'fc1' does not fit"),
    ],
)
def test_the_error_names_the_first_layer_that_does_not_fit(teacher, student, words):
    contract = contract_of(3, 32)
    with torch.device("meta"):
        wide, narrow = build(teacher, contract), build(student, contract)
    with pytest.raises(SpecError, match=words) as caught:
        fit(narrow, contract.blank(torch.device("meta")), wide.state_dict())
    assert [problem.pointer for problem in caught.value.problems] == ["/student/initial_weights"]


def test_other_classes_are_refused():
    with pytest.raises(SpecError, match="'fc2' does not fit"):
        slice_of(build("lenet5", classes=10), build("lenet5_half", classes=4))


def test_noise_is_a_tenth_of_a_weight_and_follows_the_seed():
    teacher = build("mlp", hidden=[400])
    torch.manual_seed(5)
    first = slice_of(teacher, build("mlp", hidden=[400]), noise=0.1)["fc1.weight"]
    torch.manual_seed(5)
    again = slice_of(teacher, build("mlp", hidden=[400]), noise=0.1)["fc1.weight"]
    own = teacher.state_dict()["fc1.weight"]
    assert torch.equal(first, again)
    assert float((first - own).std() / own.std()) == pytest.approx(0.1, rel=0.02)


def test_following_does_not_change_the_network():
    network = build("resnet8_cifar", COLOUR).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    follow(network, COLOUR.blank(torch.device("cpu")))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("words", "said"),
    [("teacher", "slices of the teacher's weights, with noise from seed 3"), ("random", "random, from seed 3")],
)
def test_initial_weights_are_recorded_in_report_and_files(engine_inputs, tmp_path, words, said):
    folder = shutil.copytree(engine_inputs, tmp_path / "job")
    student = {"network": "lenet5_half", "options": {}, "initial_weights": words}
    done = run_whole(job_of(folder, student=student))[-1]
    report = json.loads((folder / "output" / "report.json").read_text())
    with safe_open(folder / "output" / "student.safetensors", "pt") as file:
        assert file.metadata()["initial_weights"] == said
    assert report["initial_weights"] == report["summary"]["initial_weights"] == said
    assert check(job_of(folder, student=student))["student"]["initial_weights"] == words
    assert done["event"] != "error"


def test_the_check_refuses_a_student_that_is_no_slice(engine_inputs, tmp_path):
    student = {"network": "resnet8_cifar", "options": {}, "initial_weights": "teacher"}
    with pytest.raises(
        SpecError, match="its layer 'conv1' does not fit, because it has 16 channels and the teacher's has only 6"
    ) as caught:
        check(job_of(tmp_path, student=student))
    assert [problem.pointer for problem in caught.value.problems] == ["/student/initial_weights"]
