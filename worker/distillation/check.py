"""The check of a spec: build everything that a run would build on the meta device, without weights or data."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from worker.distillation import registry
from worker.distillation.budget.candidates import with_changes
from worker.distillation.budget.search import planned
from worker.distillation.compression.member_transforms import MemberTransforms, TransformContext
from worker.distillation.errors import Problem, SpecError
from worker.distillation.initial_weights.from_teacher import FROM_TEACHER
from worker.distillation.initial_weights.neuron_merging import mergeable
from worker.distillation.initial_weights.slices import fit, given_teacher
from worker.distillation.introspection.gradients import require_gradient
from worker.distillation.introspection.taps import Tapped, parameters_through
from worker.distillation.job import Job
from worker.distillation.planning.teacher_first import STAGE as TRAINS_TEACHER
from worker.distillation.procedure import FILE, GIVEN, PRETRAINED, Member, Stage
from worker.distillation.source import check_fields
from worker.distillation.trainer.job_plan import make_procedure, planned_stages
from worker.distillation.trainer.lineage import (
    build_network,
    pretrained_weights,
    refuse_files_of_no_teacher,
)
from worker.distillation.trainer.objective_checks import check_division, check_task
from worker.distillation.trainer.objective_sum import Composition, ConnectContext


def check(job: Job) -> dict[str, Any]:
    """Check a job's spec and return facts about its networks. If its student is chosen by a budget, `chosen` is what to write into the
    spec, and the facts are those of the chosen student.

    Raises:
        SpecError: a run could not build the job, or no student keeps its budget; the pointers are relative to the spec.
    """
    teacher = _tapped_teacher(job)
    facts = _facts(job, teacher)
    chosen = planned(job)
    if chosen is None:
        return facts
    changes = {name: chosen[name] for name in ("student", "transforms")}
    stays = changes["student"].keys() == {"budget"} and changes["transforms"] == list(job.spec.get("transforms") or ())
    return (facts if stays else _facts(with_changes(job, changes), teacher)) | {"chosen": chosen}


def _tapped_teacher(job: Job) -> Tapped | None:
    """The job's teacher on the meta device; None if it has none. No budget changes it."""
    meta = torch.device("meta")
    teacher = job.build_teacher(meta)
    if teacher is None:
        return None
    blank = job.teacher_contract.blank(meta)
    return Tapped(teacher.eval(), blank, "/teacher", job.teacher_reads, job.task.check_output)


def _facts(job: Job, tapped_teacher: Tapped | None) -> dict[str, Any]:
    """Check all networks of a job and count their parameters."""
    teacher = None if tapped_teacher is None else tapped_teacher.network
    example = job.contract.blank(torch.device("meta"))
    procedure, plan = make_procedure(job)
    stages = planned_stages(procedure, plan, [])
    deployed: dict[str, nn.Module] = {}
    for stage in stages:
        if stage.teacher and stage.teacher.startswith(FILE):
            refuse_files_of_no_teacher(job)
        teaching = _teacher_of(stage, deployed, tapped_teacher, example, job)
        for name, member in stage.members.items():
            deployed[f"{stage.name}/{name}"] = _check_member(member, stage, job, teaching, example)
    first = next((stage for stage in stages if stage.name != TRAINS_TEACHER), None)
    if first is not None:
        for member in procedure.considers(plan):
            _check_member(member, first, job, _teacher_of(first, deployed, tapped_teacher, example, job), example)
    student = _build(plan.student, job)
    _check_pretrained(student, "/student", job)
    if job.initial_weights in FROM_TEACHER:
        state = given_teacher(teacher).state_dict()
        found = fit(student, example, state)
        if job.initial_weights == "neuron_merging":
            mergeable(found, state)
    facts: dict[str, Any] = {
        "stages": [stage.name for stage in stages],
        "student": _size(student) | {"initial_weights": job.initial_weights},
    }
    if teacher is not None:
        facts["teacher"] = _size(teacher)
    return facts


def _check_pretrained(network: nn.Module, pointer: str, job: Job) -> None:
    """Check that the network at a place of the spec takes its file of pretrained weights, if it has one."""
    if file := job.pretrained(pointer):
        pretrained_weights(network, file, job, pointer)


def _teacher_of(
    stage: Stage, deployed: Mapping[str, nn.Module], given: Tapped | None, example: torch.Tensor, job: Job
) -> Tapped | None:
    """A stage's teacher: the job's teacher, or the network that an earlier stage's member deploys."""
    if stage.teacher is None or stage.teacher == GIVEN or stage.teacher.startswith(FILE):
        return given if stage.teacher else None
    name, _, member = stage.teacher.removeprefix("stage:").partition("@")[0].partition("/")
    network = deployed[f"{name}/{member or 'student'}"].eval()
    return Tapped(network, example, "/teacher", check_output=job.task.check_output)


def _check_member(member: Member, stage: Stage, job: Job, given: Tapped | None, example: torch.Tensor) -> nn.Module:
    """Check a member; return the network that it deploys."""
    network = _build(member, job)
    if member.initial == PRETRAINED:
        _check_pretrained(network, member.network_pointer, job)
    network = _transformed(network, member, job, example)
    composition = Composition(member.objectives, member.pointer)
    source = registry.make("sources", stage.source or job.spec["source"], "/source")
    check_task(composition, source, job.task, job.classes)
    check_fields(source, composition.fields)
    source.check_sampler(composition.sampler)
    if given is not None:
        if source.needs.teacher_gradient:
            require_gradient(given.network, example)
        source.check_teacher(given, example)
    source.check_inputs(job.contract, job.teacher_contract if job.teacher else None)
    tapped = Tapped(network.eval(), example, f"{member.network_pointer}/network", check_output=job.task.check_output)
    _refuse_missing_teacher(composition, given)
    gpus = (job.spec.get("resources") or {}).get("gpus") or 1
    for tap in (member.trains_through, member.trains_after):
        if tap is not None:
            parameters_through(tapped, tap, "/procedure/guided")
    with torch.device("meta"):
        context = ConnectContext(
            example=example,
            classes=job.classes,
            examples=2,
            peers=len(stage.members) - 1,
            task=job.task,
        )
        composition.connect(tapped, given, context)
        check_division(composition, source, gpus)
        if given is not None and job.training.teacher_answers == "cached" and composition.reads_logits_alone:
            source.check_distinct_views()
        return composition.deploy(network, given.network if given else None)


def _transformed(network: nn.Module, member: Member, job: Job, example: torch.Tensor) -> nn.Module:
    """The network with the structure that the member's transforms give it in training."""
    if not member.transforms:
        return network
    with torch.device("meta"):
        MemberTransforms(
            member.transforms,
            network,
            TransformContext(example=example, contract=job.contract, classes=job.classes),
        )
    return network


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
