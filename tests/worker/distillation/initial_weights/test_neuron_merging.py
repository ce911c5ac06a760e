"""Initial weights by merging neurons."""

import shutil

import pytest
import torch
from torch import nn

from tests.worker.distillation.killed_runs import job_of
from tests.worker.distillation.trial import contract_of
from worker.distillation import networks
from worker.distillation.errors import SpecError
from worker.distillation.initial_weights.neuron_merging import distances, merge, merged
from worker.distillation.process.heartbeat import heard_by
from worker.distillation.trainer.checkpoint import Checkpoints
from worker.distillation.trainer.lineage import Lineage

GREY = contract_of(1, 4)
BLANK = GREY.blank(torch.device("cpu"))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def perceptron(*hidden):
    """With integer weights, so that sums are exact."""
    network = networks.build("mlp", 3, GREY, {"hidden": list(hidden)})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randint(-4, 5, parameter.shape))
    return network


def saliency(weight, out):
    """The cost (N, N) of replacing neuron j by i."""
    return distances(weight) * out.square().mean(0)


def test_the_saliency_is_the_formula_written_slowly():
    weight, out = torch.randn(5, 3), torch.randn(4, 5)
    cost = saliency(weight, out)
    for i in range(5):
        for j in range(5):
            expected = (sum(out[row, j] ** 2 for row in range(4)) / 4) * sum((weight[i] - weight[j]) ** 2)
            assert cost[i, j] == float("inf") if i == j else torch.isclose(cost[i, j], expected)


def test_merging_is_greedy_and_takes_earlier_merges_into_account():
    weight, out = torch.randn(7, 3, dtype=torch.float64), torch.randn(4, 7, dtype=torch.float64)
    left, slow = list(range(7)), out.clone()
    while len(left) > 2:
        pairs = [(float(saliency(weight, slow)[i, j]), i, j) for i in left for j in left if i != j]
        _, kept, gone = min(pairs)
        slow[:, kept] += slow[:, gone]
        left.remove(gone)
    kept, found = merge(weight, out, 2)
    assert kept.tolist() == left
    torch.testing.assert_close(found, slow[:, left])


def test_merging_sends_heartbeats():
    heard = []
    with heard_by(lambda: heard.append(1)):
        merge(torch.randn(9, 3), torch.randn(2, 9), 4)
    assert len(heard) == 5


def duplicated(narrow, wide):
    """The narrow network's neurons in a wide one, in another order and some of them twice: it computes the same."""
    with torch.no_grad():
        places = [
            torch.cat([torch.randperm(8), torch.arange(4)]),
            torch.cat([torch.randperm(6), torch.tensor([5, 5, 1])]),
        ]
        wide.fc1.weight.copy_(narrow.fc1.weight[places[0]])
        wide.fc1.bias.copy_(narrow.fc1.bias[places[0]])
        wide.fc2.weight.copy_(_split(narrow.fc2.weight, places[0])[places[1]])
        wide.fc2.bias.copy_(narrow.fc2.bias[places[1]])
        wide.fc3.weight.copy_(_split(narrow.fc3.weight, places[1]))
        wide.fc3.bias.copy_(narrow.fc3.bias)


def _split(weight, places):
    """Columns for copies of neurons, whose sums over the copies are the columns for the neurons."""
    columns = torch.randint(-4, 5, (len(weight), len(places))).float()
    for neuron in places.unique():
        copies = (places == neuron).nonzero().flatten()
        columns[:, copies[0]] += weight[:, neuron] - columns[:, copies].sum(1)
    return columns


def test_merging_duplicate_neurons_keeps_the_outputs_exactly():
    narrow, wide, student = perceptron(8, 6), perceptron(12, 9), perceptron(8, 6)
    duplicated(narrow, wide)
    x = torch.randint(-3, 4, (64, 1, 4, 4)).float()
    assert torch.equal(wide(x), narrow(x))
    student.load_state_dict(merged(student, BLANK, wide.state_dict()))
    assert torch.equal(student(x), wide(x))


def test_other_layers_are_sliced():
    contract = contract_of(1, 16)
    teacher, student = (networks.build(name, 4, contract) for name in ("lenet5", "lenet5_half"))
    state = merged(student, contract.blank(torch.device("cpu")), teacher.state_dict())
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in student.state_dict().items()
    }
    norms = teacher.conv1.weight.detach().flatten(1).norm(dim=1)
    assert torch.equal(state["conv1.weight"], teacher.conv1.weight.detach()[norms.argsort()[-3:].sort().values])


class Normalised(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(16, width), nn.BatchNorm1d(width), nn.Linear(width, 3)

    def forward(self, x):
        return self.fc2(self.norm(self.fc1(x.flatten(1))).relu())


@pytest.mark.parametrize(("teacher", "student"), [(perceptron(6), perceptron(6)), (Normalised(6), Normalised(3))])
def test_networks_without_neurons_to_merge_are_refused(teacher, student):
    with pytest.raises(SpecError, match="requires a hidden fully connected layer"):
        merged(student, BLANK, teacher.state_dict())


def test_a_job_with_merged_neurons(engine_inputs, tmp_path):
    folder = shutil.copytree(engine_inputs, tmp_path / "job")
    student = {"network": "lenet5_half", "options": {}, "initial_weights": "neuron_merging"}
    lineage = Lineage(job_of(folder, student=student), Checkpoints(folder / "checkpoints"), torch.device("cpu"))
    state = lineage.initial(lineage.next(), "student").state_dict()
    assert state["fc2.bias"].equal(lineage.teacher.state_dict()["fc2.bias"])
    assert state["fc1.bias"].tolist() == [
        each for each in lineage.teacher.fc1.bias.tolist() if each in state["fc1.bias"]
    ]
