"""Teachers without gradients."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.worker.distillation.killed_runs import INPUT, job_of, run_whole
from worker.distillation import networks
from worker.distillation.check import check
from worker.distillation.contract import read_contract
from worker.distillation.errors import SpecError
from worker.distillation.introspection.gradients import gives_gradient, is_homogeneous
from worker.distillation.networks.family import Network
from worker.distillation.uploads.inspect_upload import inspect


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()


class Opaque(nn.Module):
    """A linear network without a gradient for its images, in one of several ways."""

    def __init__(self, way: str):
        super().__init__()
        self.way, self.linear = way, nn.Linear(12, 3)

    def forward(self, x):
        x = x.flatten(1)
        if self.way == "no_grad":
            with torch.no_grad():
                return self.linear(x)
        if self.way == "inference":
            with torch.inference_mode():
                return self.linear(x)
        if self.way == "table":
            return self.linear(nn.functional.one_hot(x.argmax(1), 12).float())
        if self.way == "function without backward":
            return self.linear(Rounded.apply(x))
        if self.way == "infinite":
            return self.linear((x * 0).sqrt())
        return self.linear(x.detach())


IMAGES = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("way", ["no_grad", "inference", "table", "function without backward", "infinite", "detached"])
@pytest.mark.parametrize("frozen", [True, False])
def test_outputs_only(way, frozen):
    assert not gives_gradient(Opaque(way).requires_grad_(not frozen), IMAGES)


@pytest.mark.parametrize(
    ("bias", "activation", "homogeneous"),
    [(False, nn.ReLU, True), (False, nn.LeakyReLU, True), (True, nn.ReLU, False), (False, nn.Tanh, False)],
)
def test_only_networks_without_biases_and_saturation_are_homogeneous(bias, activation, homogeneous):
    layers = [nn.Conv2d(3, 4, 2, bias=bias), activation(), nn.Flatten(), nn.Linear(4, 3, bias=bias)]
    network = nn.Sequential(*layers).train()
    assert is_homogeneous(network, IMAGES) is homogeneous and network.training


def test_networks_of_layers_have_a_gradient_even_if_it_is_zero():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(4, 3)
    )
    before, random = {name: tensor.clone() for name, tensor in network.state_dict().items()}, torch.get_rng_state()
    assert gives_gradient(network.requires_grad_(False), IMAGES)
    assert all(module.training for module in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    network[-1].weight.data.zero_()
    assert gives_gradient(network, IMAGES)


def test_it_works_on_the_meta_device():
    meta = torch.device("meta")
    assert gives_gradient(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).to(meta), IMAGES.to(meta))
    assert not gives_gradient(Opaque("detached").to(meta), IMAGES.to(meta))


def test_other_errors_are_raised():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        gives_gradient(nn.Sequential(nn.Flatten(), nn.Linear(13, 3)), IMAGES)


@pytest.fixture
def opaque_teacher(monkeypatch):
    """Register a network `opaque` without gradients."""

    def build(classes, contract, options):
        size = contract.channels * contract.height * contract.width
        made = Opaque("detached")
        made.linear = nn.Linear(size, classes)
        return made

    named = {**networks.named(), "opaque": Network("is not differentiable", build)}
    monkeypatch.setattr(networks, "named", lambda: named)


@pytest.mark.parametrize("checked", [True, False])
def test_sources_that_need_gradients_refuse_such_a_teacher_and_others_accept_it(checked, opaque_teacher, tmp_path):
    contract = read_contract(INPUT)
    (tmp_path / "inputs").mkdir()
    torch.manual_seed(0)
    save_file(networks.build("opaque", 4, contract).state_dict(), tmp_path / "inputs/teacher.safetensors")

    def go(source):
        job = job_of(tmp_path, source={"name": source}, objectives=[{"name": "kd"}])
        job.values["teacher"]["network"] = "opaque"
        return check(job) if checked else run_whole(job)

    with pytest.raises(SpecError, match="is not differentiable") as caught:
        go("dafl")
    assert [problem.pointer for problem in caught.value.problems] == [
        "/teacher"
    ] and "`substitute`" in caught.value.hint
    go("noise")


def test_the_inspection_detects_it(opaque_teacher, tmp_path):
    torch.manual_seed(0)
    save_file(networks.build("opaque", 4, read_contract(INPUT)).state_dict(), tmp_path / "sent")
    teacher = {"network": "opaque", "options": {}, "classes": 4, "class_names": [], "input": INPUT}
    found = inspect({"kind": "teacher", "upload": "sent", "teacher": teacher}, tmp_path)["findings"]
    assert found["differentiable"] is False
