"""SimKD: a perfect projector equals the teacher, and the parameters of the exported network are counted."""

import pytest
import torch
from torch import nn

from tests.worker.distillation.trial import PAIRS, Trial, contract_of, objective_of
from worker.distillation import networks
from worker.distillation.errors import SpecError
from worker.distillation.introspection.taps import Tapped
from worker.distillation.networks.reused_classifier import ReusedClassifier, projector
from worker.distillation.objective import BuildContext
from worker.distillation.objectives.features.similarity_head import SimilarityHead


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def trained(pair, **values):
    """A trial whose networks and projector have their own statistics, in evaluation mode."""
    trial = Trial.of(pair, objective_of("similarity_head", **values), samples=8)
    for _ in range(3):
        trial.objective(trial.step())
    trial.objective.eval()
    trial.student.network.eval()
    return trial


@pytest.mark.parametrize("vectors", [False, True])
def test_a_perfect_projector_gives_the_teachers_logits(vectors):
    trial = Trial.of("residual", objective_of("similarity_head", vectors=vectors))
    teacher = trial.teacher.network
    trial.objective.projector = nn.Identity()
    trial.objective.student_tap = "fc:in" if vectors else "layer3"
    deployed = trial.objective.deploy(teacher, teacher)
    torch.testing.assert_close(deployed(trial.batch.image), teacher(trial.batch.image))


@pytest.mark.parametrize(("pair", "values"), [("residual", {}), ("residual", {"vectors": True}), ("plain", {})])
def test_the_exported_network_projects_the_students_features_to_the_teachers_classifier(pair, values):
    trial = trained(pair, **values)
    deployed = trial.objective.deploy(trial.student.network, trial.teacher.network)
    step = trial.step()
    features = trial.objective.projector(step.student.taps[trial.objective.student_tap])
    vector = features.mean((2, 3)) if features.ndim == 4 else features
    classifier = trial.teacher.network.get_submodule(trial.objective.classifier)
    torch.testing.assert_close(deployed(step.batch.image), classifier(vector))
    assert not torch.allclose(deployed(step.batch.image), step.student.logits)  # the student alone is another network


def test_loss_is_the_mean_squared_difference_of_features():
    trial = trained("residual")
    step = trial.step()
    projected = trial.objective.projector(step.student.taps["layer3"])
    difference = projected - step.teacher.taps["layer3"]
    torch.testing.assert_close(trial.objective(step)["features"], difference.square().sum() / difference.numel())


def test_the_exported_network_has_the_teachers_classifier_only():
    trial = trained("residual")
    student, teacher = trial.student.network, trial.teacher.network
    deployed = trial.objective.deploy(student, teacher)
    expected = count(student) - count(student.fc) + count(trial.objective.projector) + count(teacher.fc)
    assert count(deployed) == expected
    assert {key.split(".")[0] for key in deployed.state_dict()} == {"student", "projector", "classifier"}
    assert count(deployed) != count(student)  # the number that the public code reports
    assert count(student.fc) > 0  # which is left as it was


def test_projector_has_the_authors_layers():
    shapes = [tuple(each.weight.shape) for each in projector(64, 128, 256, True, True) if isinstance(each, nn.Conv2d)]
    assert shapes == [(128, 64, 1, 1), (128, 128, 3, 3), (256, 128, 1, 1)]
    kinds = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 3
    assert [type(each) for each in projector(64, 128, 256, True, True)] == kinds
    assert [type(each) for each in projector(64, 128, 256, True, False)] == kinds[:-1]
    objective = objective_of("similarity_head", reduction=4)
    Trial.of("residual", objective)
    assert objective.projector[0].weight.shape == (64, 64, 1, 1)


def test_it_can_be_built_again_from_its_parts_and_loaded():
    trial = trained("residual")
    deployed = trial.objective.deploy(trial.student.network, trial.teacher.network)
    student = networks.build("resnet8_cifar", 5, contract_of(3, 8))
    student.fc = nn.Identity()
    again = ReusedClassifier(student, "layer3", (2, 2), projector(64, 128, 256, True, True), nn.Linear(256, 5))
    again.load_state_dict(deployed.state_dict(), strict=True)
    assert torch.equal(again.eval()(trial.batch.image), deployed(trial.batch.image))


def test_the_students_own_classifier_learns_nothing():
    trial = Trial.of("residual", objective_of("similarity_head"))
    sum(trial.objective(trial.step()).values()).backward()
    named = trial.student.network.named_parameters()
    assert {name for name, parameter in named if parameter.grad is None} == {"fc.weight", "fc.bias"}


def test_larger_maps_are_averaged_down():
    objective = objective_of("similarity_head", student_tap="layer2")
    trial = Trial.of("residual", objective)
    assert objective.size == (2, 2)
    assert objective(trial.step())["features"].isfinite()
    assert objective.deploy(trial.student.network, trial.teacher.network)(trial.batch.image).shape == (4, 5)


@pytest.mark.parametrize("tap", ["layer9", "layer3:pre", "fc:in"])
def test_refuses_taps_that_cannot_ship(tap):
    with pytest.raises(SpecError) as caught:
        Trial.of("residual", objective_of("similarity_head", student_tap=tap))
    assert [problem.pointer for problem in caught.value.problems] == ["/student_tap"]


class Tail(nn.Module):
    """A network with another operation between its last map and its classifier, or after the classifier."""

    def __init__(self, before=None, after=None):
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Linear(6, 5)
        self.before, self.after = before, after

    def forward(self, x):
        x = self.relu(self.conv(x)).mean((2, 3))
        x = self.fc(x if self.before is None else self.before(x))
        return x if self.after is None else self.after(x)


def refusals(teacher, **values):
    channels, size = PAIRS["plain"][2:]
    example = torch.randn(2, channels, size, size)
    student = Tapped(networks.build("lenet5_half", 5, contract_of(channels, size)), example)
    tapped, objective = Tapped(teacher, example), SimilarityHead(SimilarityHead.Parameters(**values))
    wanted = objective.taps(student.map, tapped.map)
    student.request(wanted.student)
    tapped.request(wanted.teacher)
    try:
        objective.build(BuildContext(student(example), tapped(example), student.network, teacher, 5))
    except SpecError as error:
        return {problem.pointer for problem in error.problems}
    return set()


def test_refuses_a_head_that_is_more_than_a_linear_layer():
    assert refusals(Tail()) == set()
    assert refusals(Tail(after=lambda logits: 3 * logits)) == {"/name"}
    assert refusals(Tail(before=lambda vector: 2 * vector + 1)) == {"/vectors"}
    assert refusals(Tail(before=lambda vector: 2 * vector + 1), vectors=True) == set()
