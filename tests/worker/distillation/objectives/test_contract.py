"""Requirements for every file in objectives/."""

import copy
import inspect

import pytest
import torch

from tests.worker.distillation.trial import PAIRS, Setting, Trial, contract_of, objective_of, variants
from worker.distillation import networks, registry
from worker.distillation.catalogue.contents import first_sentence
from worker.distillation.catalogue.schema import schema
from worker.distillation.errors import SpecError
from worker.distillation.introspection.taps import Tapped
from worker.distillation.objective import BuildContext
from worker.distillation.step import Outputs

NAMES = registry.names("objectives")
CASES = [(name, values) for name in NAMES for values in variants(name)]
each_objective = pytest.mark.parametrize("name", NAMES)
each_case = pytest.mark.parametrize(("name", "values"), CASES, ids=[f"{name}-{values}" for name, values in CASES])
each_pair = pytest.mark.parametrize("pair", PAIRS)


def total(objective, step):
    return sum(objective(step).values())


@each_case
@each_pair
def test_gives_named_finite_scalars(name, values, pair):
    trial = Trial.of(pair, objective_of(name, **values))
    terms = trial.objective(trial.step())
    assert terms
    for term, value in terms.items():
        assert isinstance(term, str)
        assert value.shape == ()
        assert value.isfinite()


@each_case
@each_pair
def test_moves_the_student_and_leaves_the_teacher(name, values, pair):
    trial = Trial.of(pair, objective_of(name, **values))
    before = copy.deepcopy(trial.teacher.network.state_dict())
    total(trial.objective, trial.step()).backward()
    gradients = [parameter.grad for parameter in trial.student.network.parameters() if parameter.grad is not None]
    assert any(gradient.abs().max() > 0 for gradient in gradients)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all(parameter.grad is None for parameter in trial.teacher.network.parameters())
    after = trial.teacher.network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@each_case
def test_keeps_its_own_weights_to_itself(name, values):
    objective = objective_of(name, **values)
    trial = Trial.of("plain", objective)
    student, teacher = trial.student.network, trial.teacher.network
    fresh = Setting.of("plain", objective).build(1, 5)
    assert student.state_dict().keys() == fresh.state_dict().keys()
    networks_own = {id(tensor) for network in (student, teacher) for tensor in network.parameters()}
    assert not networks_own & {id(parameter) for parameter in objective.parameters()}


@each_case
@each_pair
def test_is_the_same_in_low_precision(name, values, pair):
    trial = Trial.of(pair, objective_of(name, **values))
    trial.student.eval()
    step = trial.step()
    exact = total(copy.deepcopy(trial.objective), step)
    with torch.autocast("cpu", torch.bfloat16):
        rough = total(copy.deepcopy(trial.objective), step)
    torch.testing.assert_close(rough.float(), exact.float(), rtol=5e-2, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert total(trial.objective, trial.step()).isfinite()


@each_case
def test_is_a_mean_over_samples_unless_declared_otherwise(name, values):
    trial = Trial.of("plain", objective_of(name, **values))
    if trial.objective.active_needs.batch_global:
        return
    trial.objective.eval()
    step = trial.step()
    halves = [total(trial.objective, trial.part(step, rows)) for rows in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(total(trial.objective, step), (halves[0] + halves[1]) / 2)


@each_case
def test_resumes_from_its_state(name, values):
    first, second = (Trial.of("plain", objective_of(name, **values)) for _ in range(2))
    with torch.no_grad():
        for parameter in first.objective.parameters():
            parameter.add_(torch.randn_like(parameter))
    total(first.objective, first.step())
    second.objective.load_state_dict(first.objective.state_dict())
    step = first.step()
    assert torch.equal(total(first.objective, step), total(second.objective, step))


@each_objective
def test_refuses_to_work_without_the_teacher_that_it_needs(name):
    objective = objective_of(name)
    if not objective.active_needs.teacher:
        return
    trial = Trial.of("plain", objective_of(name))
    with pytest.raises(SpecError) as caught:
        objective.taps(trial.student.map, None)
        objective.build(BuildContext(trial.step().student, None, trial.student.network, None, 5))
    assert all(problem.pointer.startswith("/") for problem in caught.value.problems)


@each_case
def test_refuses_other_classes_only_if_it_compares_logits(name, values):
    objective = objective_of(name, **values)
    if not objective.active_needs.logits:
        trial = Trial.of("plain", objective, classes=5, teacher_classes=7)
        assert total(objective, trial.step()).isfinite()
        return
    with pytest.raises(SpecError) as caught:
        Trial.of("plain", objective, classes=5, teacher_classes=7)
    assert all(problem.pointer.startswith("/") for problem in caught.value.problems)


@each_case
def test_refuses_fewer_classes_than_it_needs(name, values):
    objective = objective_of(name, **values)
    fewest = objective.active_needs.minimum_classes
    Trial.of("plain", objective, classes=fewest)
    if fewest > 1:
        with pytest.raises(SpecError, match="classes"):
            objective_of(name, **values).build(_context(fewest - 1))


@each_objective
def test_refuses_taps_that_are_not_there(name):
    method = registry.find("objectives", name)
    if "taps" not in schema(method.Parameters)["properties"]:
        return
    first = "relu1" if "classification" in method.needs.tasks else "fpn.output.0"
    with pytest.raises(SpecError) as caught:
        Trial.of("plain", objective_of(name, taps=[[first, "relu9"]]))
    assert [problem.pointer for problem in caught.value.problems] == ["/taps/0/1"]
    flat = Tapped(networks.build("mlp", 5, contract_of(1, 16), {"hidden": [8]}), torch.zeros(2, 1, 16, 16))
    with pytest.raises(SpecError) as caught:
        objective_of(name).taps(flat.map, flat.map)
    assert all(problem.pointer.startswith("/taps") for problem in caught.value.problems)


@each_objective
def test_has_a_description_and_a_paper(name):
    method = registry.find("objectives", name)
    assert first_sentence(method).endswith(".")
    assert method.paper or not method.needs.teacher
    module = inspect.getmodule(method)
    assert len(inspect.getsource(module).splitlines()) <= 130
    for parameter, rule in schema(method.Parameters)["properties"].items():
        assert rule.get("description"), parameter
        assert "default" in rule or parameter in schema(method.Parameters)["required"]


def _context(classes):
    outputs = Outputs(torch.zeros(2, classes))
    return BuildContext(outputs, outputs, torch.nn.Identity(), torch.nn.Identity(), classes)
