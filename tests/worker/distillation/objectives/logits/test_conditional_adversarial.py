"""Conditional adversarial distillation against its formulas: the losses of student and discriminator."""

import math
import shutil

import pytest
import torch
import torch.nn.functional as F

from tests.worker.distillation.killed_runs import job_of, run_killed, run_whole, same_bits, student_of
from tests.worker.distillation.trial import Trial, objective_of
from worker.distillation.objective import BuildContext
from worker.distillation.objectives.logits.conditional_adversarial import origin_loss, taken_for
from worker.distillation.step import Batch, Outputs, Step
from worker.distillation.trainer.member_run import MemberRun
from worker.distillation.trainer.objective_sum import Composition

B, K = 6, 5
FORMS = ("softmax", "lsgan")
each_form = pytest.mark.parametrize("form", FORMS)
NAME = "conditional_adversarial"


def context(classes=K):
    outputs = Outputs(torch.zeros(2, classes))
    return BuildContext(outputs, outputs, torch.nn.Identity(), torch.nn.Identity(), classes)


def built(**values):
    torch.manual_seed(0)
    objective = objective_of(NAME, **values)
    objective.build(context())
    return objective


def step_of(seed=1):
    torch.manual_seed(seed)
    student, teacher = torch.randn(2, B, K).mul(2).unbind()
    batch = Batch(torch.zeros(B, 1, 1, 1), {"label": torch.arange(B) % K})
    return Step(batch, Outputs(student.requires_grad_(True)), Outputs(teacher))


def detached(step):
    return Step(step.batch, step.student.detached(), step.teacher)


def test_equal_scores_of_origin_cost_two_logarithms_of_two():
    scores = torch.full((B, 2), 0.7)
    assert float(origin_loss(scores, scores)) == pytest.approx(2 * math.log(2))


def test_one_softmax_over_classes_and_origins_costs_more():
    """Then class and origin are not independent."""
    scores = torch.zeros(B, K + 2)
    joint = F.cross_entropy(scores, torch.full((B,), K + 1)) + F.cross_entropy(scores, torch.full((B,), K))
    assert float(joint) == pytest.approx(2 * math.log(K + 2))
    assert float(joint) != pytest.approx(2 * math.log(2))


def test_scores_of_least_squares():
    real, fake = torch.tensor([[0.5], [2.0]]), torch.tensor([[0.5], [-1.0]])
    assert float(origin_loss(real, fake)) == pytest.approx((0.25 + 1 + 0.25 + 1) / 2 / 2)
    assert float(taken_for(fake, real=True)) == pytest.approx((0.25 + 4) / 2)


@each_form
def test_discriminator_learns_origin_and_class_by_the_formula(form):
    objective, step = built(form=form).eval(), step_of()
    with torch.no_grad():
        (ct, ot), (cs, os) = (objective.discriminator(x.logits) for x in (step.teacher, step.student))
        if form == "softmax":
            slow = -(ot.log_softmax(1)[:, 1].mean() + os.log_softmax(1)[:, 0].mean())
        else:
            slow = ((ot - 1) ** 2 + os**2).mean() / 2
        slow += F.cross_entropy(ct, step.label) + F.cross_entropy(cs, step.label)
        assert ct.shape == (B, K)
        assert ot.shape == (B, 2 if form == "softmax" else 1)
        torch.testing.assert_close(objective.adversary_loss(detached(step)), slow)


@each_form
def test_student_pays_for_distance_origin_and_class(form):
    objective, step = built(form=form, l1=0.5, adversarial=0.25).eval(), step_of()
    classes, origin = objective.discriminator(step.student.logits)
    distance = sum((step.student.logits - step.teacher.logits).abs().flatten().tolist()) / B
    real = -origin.log_softmax(1)[:, 1].mean() if form == "softmax" else (origin - 1).square().mean()
    closed = {
        "l1": torch.tensor(0.5 * distance),
        "origin": 0.25 * real,
        "class": 0.25 * F.cross_entropy(classes, step.label),
    }
    torch.testing.assert_close(objective(step), closed)


@each_form
def test_each_side_leaves_the_others_gradients_alone(form):
    objective, step = built(form=form), step_of()
    sum(objective(step).values()).backward()
    assert step.student.logits.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in objective.parameters())
    step.student.logits.grad = None
    objective.adversary_loss(detached(step)).backward()
    assert step.student.logits.grad is None
    assert all(parameter.grad is not None for parameter in objective.adversary_parameters())
    assert {id(p) for p in objective.adversary_parameters()} == {id(p) for p in objective.parameters()}


@each_form
def test_a_discriminator_learns_to_tell_and_a_student_to_pass(form):
    objective, step = built(form=form, l1=0.0), step_of()
    step.teacher.logits += 2 * F.one_hot(step.label, K)
    optimizer = torch.optim.Adam(objective.adversary_parameters(), 1e-2)

    def origin():
        with torch.no_grad():
            scores = [objective.discriminator(x.logits)[1] for x in (step.teacher, step.student)]
            return float(origin_loss(*scores))

    before = origin()
    for _ in range(100):
        optimizer.zero_grad()
        objective.adversary_loss(detached(step)).backward()
        optimizer.step()
    assert origin() < 0.7 * before
    logits = step.student.logits
    passing = float(objective(detached(step))["origin"])
    for _ in range(20):
        gradient = torch.autograd.grad(objective(step)["origin"], logits)[0]
        logits.data -= 10 * gradient
    assert float(objective(detached(step))["origin"]) < passing


def test_every_layer_has_spectral_norm_one():
    objective = built(width=16, blocks=2)
    assert len(objective.discriminator.blocks) == 2
    for _ in range(50):
        objective.adversary_loss(detached(step_of()))
    layers = [module for module in objective.discriminator.modules() if isinstance(module, torch.nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in layers] == [(16, K), *[(16, 16)] * 4, (K + 2, 16)]
    for layer in layers:
        assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) == pytest.approx(1, abs=0.02)


def test_is_built_without_memory_for_a_check():
    with torch.device("meta"):
        objective = objective_of(NAME)
        objective.build(context())
    assert all(parameter.is_meta for parameter in objective.adversary_parameters())


def test_its_adversary_has_a_learning_rate_of_its_own():
    composition = Composition([{"name": NAME, "discriminator_learning_rate": 0.004}])
    composition.build(context())
    assert [group["lr"] for group in composition.adversary_groups()] == [0.004]
    assert not composition.trained_parameters()


def test_standardised_reads_logits_without_scale():
    objective, step = built(standardise=True).eval(), step_of()
    moved = Step(step.batch, Outputs(3 * step.student.logits + 1), Outputs(5 * step.teacher.logits - 2))
    torch.testing.assert_close(objective(moved), objective(step))
    torch.testing.assert_close(objective.adversary_loss(detached(moved)), objective.adversary_loss(detached(step)))
    assert Trial.of("plain", objective_of(NAME, standardise=True)).objective(step)["l1"].isfinite()


def run_twice(engine_inputs, tmp_path, form, at):
    spec = {"objectives": [{"name": "cross_entropy"}, {"name": NAME, "form": form, "adversarial": 1.0}]}
    for name in ("whole", "killed"):
        shutil.copytree(engine_inputs, tmp_path / name)
    run_whole(job_of(tmp_path / "whole", **spec))
    run_killed(job_of(tmp_path / "killed", **spec), at, tmp_path / "restored")
    return same_bits(student_of(tmp_path / "whole"), student_of(tmp_path / "restored"))


@each_form
@pytest.mark.parametrize("at", [1, 3])
def test_killed_and_restored_bit_equal(form, at, engine_inputs, tmp_path):
    assert run_twice(engine_inputs, tmp_path, form, at)


@pytest.mark.parametrize("lost", ["objectives", "adversary"])
def test_a_resume_without_the_discriminator_or_its_optimizer_is_noticed(lost, engine_inputs, tmp_path, monkeypatch):
    load = MemberRun.load_state_dict

    def forgetful(member, state):
        fresh = member.state_dict()
        optimizers = state["optimizers"] | ({lost: fresh["optimizers"][lost]} if lost == "adversary" else {})
        objectives = fresh["objectives"] if lost == "objectives" else state["objectives"]
        load(member, {**state, "optimizers": optimizers, "objectives": objectives})

    monkeypatch.setattr(MemberRun, "load_state_dict", forgetful)
    assert not run_twice(engine_inputs, tmp_path, "softmax", 3)
