"""The check of a spec: everything that a run would build is built on the meta device, without weights or data."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from worker.distillation import registry
from worker.distillation.composition import Composition
from worker.distillation.errors import Problem, SpecError
from worker.distillation.job import Job
from worker.distillation.lineage import build_network, make_procedure, planned_stages
from worker.distillation.objective import BuildContext
from worker.distillation.procedure import GIVEN, Member, Stage
from worker.distillation.source import check_fields
from worker.distillation.taps import Tapped, parameters_through


def check(job: Job) -> dict[str, Any]:
    """Facts about the networks of a job.

    Raises:
        SpecError: with pointers into the spec, for whatever a run could not build.
    """
    meta = torch.device("meta")
    teacher = job.build_teacher(meta)
    example = torch.zeros(2, job.contract.channels, job.contract.height, job.contract.width, device=meta)
    tapped_teacher = Tapped(teacher.eval(), example, "/teacher") if teacher is not None else None
    procedure, plan = make_procedure(job)
    stages = planned_stages(procedure, plan, [])
    for index, stage in enumerate(stages):
        teaching = _teacher_of(stage, stages[:index], job, tapped_teacher, example)
        for member in stage.members.values():
            _check_member(member, stage, job, teaching, example)
    facts: dict[str, Any] = {"stages": [stage.name for stage in stages], "student": _size(_build(plan.student, job))}
    if teacher is not None:
        facts["teacher"] = _size(teacher)
    return facts


def _teacher_of(
    stage: Stage, before: Sequence[Stage], job: Job, given: Tapped | None, example: torch.Tensor
) -> Tapped | None:
    """A stage's teacher: the job's own, or a member of a stage before it."""
    if stage.teacher is None or stage.teacher == GIVEN:
        return given if stage.teacher else None
    name, _, member = stage.teacher.removeprefix("stage:").partition("@")[0].partition("/")
    members = next(earlier.members for earlier in before if earlier.name == name)
    return Tapped(_build(members[member or "student"], job).eval(), example, "/teacher")


def _check_member(member: Member, stage: Stage, job: Job, given: Tapped | None, example: torch.Tensor) -> None:
    network = _build(member, job)
    for index, spec in enumerate(member.transforms):
        registry.make("transforms", spec, f"/transforms/{index}")
    composition = Composition(member.objectives, member.pointer)
    source = registry.make("sources", job.spec["source"], "/source")
    check_fields(source, composition.fields)
    source.check_sampler(composition.sampler)
    tapped = Tapped(network.eval(), example, f"{member.network_pointer}/network")
    _refuse_missing_teacher(composition, given)
    wanted = composition.taps(tapped.map, given.map if given else None)
    tapped.request(wanted.student)
    if given:
        given.request(wanted.teacher)
    if member.trains_through is not None:
        parameters_through(tapped, member.trains_through, "/procedure/guided")
    with torch.no_grad(), torch.device("meta"):
        outputs, teachers = tapped(example), given(example) if given else None
        taught_by, peers = given.network if given else None, len(stage.members) - 1
        composition.build(BuildContext(outputs, teachers, network, taught_by, job.classes, 2, peers=peers))


def _refuse_missing_teacher(composition: Composition, teacher: Tapped | None) -> None:
    problems = [
        Problem(place, "needs a teacher, and the job has none")
        for place, needs in zip(composition.pointers, composition.needs(), strict=True)
        if needs.teacher and teacher is None
    ]
    if problems:
        raise SpecError(problems)


def _build(member: Member, job: Job) -> nn.Module:
    with torch.device("meta"):
        return build_network(member, job)


def _size(network: nn.Module) -> dict[str, int]:
    return {"parameters": sum(parameter.numel() for parameter in network.parameters())}
