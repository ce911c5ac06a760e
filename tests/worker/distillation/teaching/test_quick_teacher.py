"""A teacher that is folded, or runs in a precision of its own."""

import pytest
import torch
from torch import nn

from tests.worker.distillation.killed_runs import INPUT, job_of, run_whole, same_bits, student_of, with_residual_teacher
from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.introspection.taps import Tapped
from worker.distillation.teaching.folding import folded
from worker.distillation.teaching.quick_teacher import Graphed, quick_teacher
from worker.distillation.training import Training

KD = [{"name": "kd"}]
CONTRACT = read_contract(INPUT | {"channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3})
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: CUDA graphs exist there alone")


def trained(name: str) -> nn.Module:
    """A frozen network whose BatchNorm layers have statistics, scales and shifts of their own."""
    torch.manual_seed(0)
    network = networks.build(name, 5, CONTRACT, {})
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    with torch.no_grad():
        for _ in range(5):
            network(torch.randn(16, 3, 16, 16) + 0.5)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet8_cifar", 9), ("resnet20_cifar", 21), ("torchvision/mobilenet_v2", 52), ("lenet5", 0)],
)
def test_a_folded_network_gives_the_same_logits_with_fewer_layers(name, count):
    network = trained(name) if name != "lenet5" else networks.build(name, 5, CONTRACT, {}).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    made, norms = folded(network, torch.zeros(2, 3, 16, 16))
    assert norms == count
    assert sum(isinstance(each, nn.BatchNorm2d) for each in made.modules()) == 0
    image = torch.randn(6, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(made(image), network(image), rtol=1e-3, atol=1e-3)
    assert same_bits(before, network.state_dict())


class _Twice(nn.Module):
    """Reads the output of a convolution past its BatchNorm too, and calls another pair twice."""

    def __init__(self, past: bool):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.second, self.shared = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.past = past

    def forward(self, x):
        made = self.first(x)
        x = self.norm(made) + (made if self.past else 0)
        for _ in range(2):
            x = self.shared(self.second(x)).relu()
        return x.mean((2, 3))


@pytest.mark.parametrize(("past", "count"), [(False, 1), (True, 0)])
def test_a_norm_whose_input_is_read_elsewhere_is_not_folded(past, count):
    torch.manual_seed(0)
    network = _Twice(past).train()
    with torch.no_grad():
        network(torch.randn(8, 3, 8, 8) + 1)
    made, norms = folded(network.eval(), torch.zeros(2, 3, 8, 8))
    assert norms == count and (made is network) is (count == 0)
    image = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(made(image), network(image), rtol=1e-4, atol=1e-4)


def test_bf16_gives_nearly_the_same_logits_in_float32():
    teacher = Tapped(trained("resnet20_cifar"), torch.zeros(2, 3, 16, 16))
    image = torch.randn(8, 3, 16, 16)
    quick = quick_teacher(teacher, Training.from_spec({"teacher_precision": "bf16", "fold_teacher": True}))
    logits, expected = quick(image), teacher(image).logits
    assert logits.dtype == torch.float32 and quick.norms_folded == 21
    assert not torch.equal(logits, expected)
    assert float((logits - expected).abs().max()) < 0.05 * float(expected.abs().max())


def test_without_options_the_teacher_runs_like_the_student():
    teacher = Tapped(trained("resnet8_cifar"), torch.zeros(2, 3, 16, 16))
    assert quick_teacher(teacher, Training.from_spec({})) is None
    assert quick_teacher(None, Training.from_spec({"fold_teacher": True})) is None


OPTIONS = {"fold_teacher": True, "teacher_precision": "bf16"}


@pytest.fixture
def student(engine_inputs, tmp_path):
    """Trains a student and returns its weights."""

    def trained(name, objectives, training):
        folder = with_residual_teacher(engine_inputs, tmp_path / name)
        job = job_of(folder, objectives=objectives, training={"steps": 3} | training)
        job.values["teacher"].update(network="resnet8_cifar")
        run_whole(job)
        return student_of(folder)

    return trained


def test_a_job_trains_with_a_quick_teacher(student):
    plain, quick = student("plain", KD, {}), student("quick", KD, OPTIONS)
    assert not same_bits(plain, quick)
    assert all(torch.allclose(plain[key], quick[key], rtol=0.1, atol=0.02) for key in plain)


@pytest.mark.slow
def test_the_options_are_ignored_where_activations_are_read(student):
    hinted = [{"name": "hint"}]
    assert same_bits(student("plain", hinted, {}), student("quick", hinted, OPTIONS))


@NEEDS_GPU
def test_a_graph_gives_what_the_network_gives():
    network = trained("resnet8_cifar").cuda()
    graphed = Graphed(network)
    with torch.no_grad():
        for count in (4, 4, 7, 4):
            image = torch.randn(count, 3, 16, 16, device="cuda")
            torch.testing.assert_close(graphed(image), network(image), rtol=1e-3, atol=1e-3)
    assert len(graphed._graphs) == 2
