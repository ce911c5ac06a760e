"""Procedures and plans, for tests without a run."""

from worker.distillation import registry
from worker.distillation.parameters import parse
from worker.distillation.procedure import GIVEN, Member, Plan, StageResult

KD = ({"name": "kd", "weight": 1.0},)
STUDENT = Member("lenet5_half", {}, KD, initial=GIVEN, transforms=({"name": "quantise"},))


def plan_of(**values):
    usual = {"student": STUDENT, "teacher": GIVEN, "epochs": 10, "steps": None, "seed": 0, "task": "classification"}
    return Plan(**(usual | values))


def procedure_of(name, **values):
    method = registry.find("procedures", name)
    return method(parse(method.Parameters, values))


def stages_of(procedure, plan):
    """All stages of a procedure, and the history that they leave."""
    history, stages = [], []
    while (stage := procedure.next(tuple(history), plan)) is not None:
        stages.append(stage)
        history.append(StageResult(stage.name, stage.steps or 1, {"loss": 1.0}, stage.snapshots))
    return stages, history
