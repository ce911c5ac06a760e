"""The origin of networks: the job's teacher, finished stages and their snapshots, initial weights, or a seed."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from worker.distillation import networks, programs
from worker.distillation.errors import Problem, SpecError, UploadError
from worker.distillation.initial_weights.from_teacher import FROM_TEACHER
from worker.distillation.initial_weights.pretrained import pretrained
from worker.distillation.initial_weights.slices import given_teacher
from worker.distillation.introspection.gradients import gives_gradient
from worker.distillation.introspection.taps import Tapped
from worker.distillation.job import Job
from worker.distillation.like_teacher import program_source
from worker.distillation.planning.teacher_first import PLACE, TeacherFirst
from worker.distillation.procedure import FILE, GIVEN, PRETRAINED, Member, Stage, StageResult
from worker.distillation.randomness import seed_all, seed_for
from worker.distillation.synthesis.estimate import Estimator
from worker.distillation.trainer.checkpoint import Checkpoints
from worker.distillation.trainer.job_plan import make_procedure, planned_stages
from worker.distillation.trainer.network_parts import network_part, objectives_part, split_place, transforms_part
from worker.distillation.trainer.objective_sum import Composition, ConnectContext, deploying
from worker.distillation.transformed_network import Entry, rebuild, structural
from worker.distillation.uploads.key_matching import match
from worker.distillation.uploads.state_dicts import read_state_dict


@dataclass
class Lineage:
    """The networks of one run. `history` grows as stages finish."""

    job: Job
    checkpoints: Checkpoints
    device: torch.device
    history: list[StageResult] = field(default_factory=list)
    _planned: tuple[int, list[int]] | None = None
    """Number of finished stages, and the budgets of all stages as planned at that point."""
    _estimators: dict[str, Estimator | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.procedure, self.plan = make_procedure(self.job)
        teacher = self.job.build_teacher(self.device)
        self.teacher = freeze(teacher) if teacher is not None else None
        for stage in planned_stages(self.procedure, self.plan, []):
            if stage.teacher and stage.teacher.startswith(FILE):
                refuse_files_of_no_teacher(self.job)
                if self.teacher is not None:
                    self._uploaded(stage.teacher, self.teacher)

    def next(self) -> Stage | None:
        """The next stage to run."""
        stage = self.procedure.next(tuple(self.history), self.plan)
        if stage is not None and any(result.name == stage.name for result in self.history):
            raise RuntimeError(f"the procedure gives two stages the name {stage.name!r}; names must be unique")
        return stage

    def student_place(self, unfinished: Stage | None = None) -> str:
        """The place of the job's student; if `unfinished` is given, as if that stage were the last."""
        history = [*self.history, StageResult(unfinished.name, 0, {})] if unfinished else self.history
        return self.procedure.student_place(tuple(history), self.plan)

    def planned_student_place(self, stages: list[Stage]) -> str:
        """The place of the job's student after these stages."""
        return self.procedure.student_place(
            [StageResult(stage.name, 0, {}, stage.snapshots) for stage in stages], self.plan
        )

    def kept_places(self) -> dict[str, str]:
        """The places of the other networks that become artifacts, by name."""
        return self.procedure.kept_places(tuple(self.history), self.plan)

    def ensembles(self) -> dict[str, tuple[str, ...]]:
        """The places of the networks of each ensemble that becomes an artifact, by name."""
        return self.procedure.ensembles(tuple(self.history), self.plan)

    def decisions(self) -> dict[str, Any]:
        """The procedure's decisions, as plain data for the report."""
        return self.procedure.decisions(tuple(self.history), self.plan)

    def fraction(self, of_stage: float) -> float:
        """Progress of the job (0 to 1) if `of_stage` of the running stage is done; stages count by their planned budgets."""
        if self._planned is None or self._planned[0] != len(self.history):
            stages = planned_stages(self.procedure, self.plan, self.history)
            self._planned = len(self.history), [stage.steps or stage.epochs or 1 for stage in stages]
        budgets = self._planned[1]
        done = sum(budgets[: len(self.history)]) + of_stage * sum(budgets[len(self.history) :][:1])
        return min(1.0, done / sum(budgets)) if budgets else of_stage

    def network(self, place: str) -> nn.Module:
        """A finished stage's network; `place` is `STAGE` or `STAGE/MEMBER`, optionally with `@EPOCH`."""
        network = self._fresh(self.member(place))
        rebuild(network, self.entries_at(place))
        network.to(self.device).load_state_dict(self.checkpoints.thaw(network_part(place)))
        return network.requires_grad_(True)

    def entries_at(self, place: str) -> list[Entry]:
        """The transforms that were carried out on a finished stage's network."""
        name = transforms_part(place)
        return self.checkpoints.thaw(name) if name in self.checkpoints.frozen() else []

    def entries(self, stage: Stage, name: str) -> list[Entry]:
        """The transforms that were carried out on a member's initial network: those that changed the modules of a finished one."""
        initial = stage.members[name].initial or ""
        return structural(self.entries_at(initial.removeprefix("stage:"))) if initial.startswith("stage:") else []

    def deployed(
        self, place: str, weights: dict[str, Tensor] | None = None, objectives: dict[str, Tensor] | None = None
    ) -> nn.Module:
        """The network that ships from a finished stage: the member's network, or the one that its objectives build from it.

        If given, `weights` and `objectives` replace the states of the network and of the objectives at the stage's end.
        """
        network = self.network(place)
        member = self.member(place)
        if weights is not None:
            network.load_state_dict(weights)
        specs = deploying(member.objectives)
        if not specs:
            return network
        stage = self._finished(split_place(place)[0])
        teacher = self.teacher_of(stage)
        composition = Composition(specs, member.pointer)
        context = ConnectContext(
            example=self._example(),
            classes=self.job.classes,
            examples=None,
            peers=len(stage.members) - 1,
            task=self.job.task,
        )
        with torch.random.fork_rng([]):
            tapped = self._tapped(network.eval(), f"{member.network_pointer}/network")
            composition.connect(tapped, teacher, context)
        composition.load_state_dict(objectives or self.checkpoints.thaw(objectives_part(place)))
        return composition.deploy(network, teacher.network if teacher else None)

    def teacher_of_job(self) -> nn.Module | None:
        """The job's teacher: the given one, or the one that the first stage trained (None until it is finished)."""
        if not isinstance(self.procedure, TeacherFirst):
            return self.teacher
        return freeze(self.network(PLACE)) if self.history else None

    def estimator(self, use: Literal["trials", "report"]) -> Estimator | None:
        """Estimates agreement with the job's teacher without data; each use has images of its own, drawn once.

        None where nothing can be estimated: for other tasks, without a teacher, or if it has no gradient.
        """
        if use not in self._estimators:
            self._estimators[use] = self._new_estimator(use)
        return self._estimators[use]

    def _new_estimator(self, use: str) -> Estimator | None:
        teacher = self.teacher_of_job()
        if teacher is None or self.job.task.name != "classification" or not gives_gradient(teacher, self._example()):
            return None
        seed = seed_for(self.plan.seed, use)
        return Estimator(teacher, self.job.contract, self.job.classes, seed, self.device)

    def member(self, place: str) -> Member:
        """The member at a place, as plain data."""
        stage, member, _ = split_place(place)
        return self._finished(stage).members[member]

    def teacher_of(self, stage: Stage) -> Tapped | None:
        """The stage's teacher: a frozen copy with its own taps."""
        given = self.teacher
        if stage.teacher is None or (stage.teacher == GIVEN and given is None):
            return None
        if given is not None and (stage.teacher == GIVEN or stage.teacher.startswith(FILE)):
            network = freeze(given)
            if stage.teacher.startswith(FILE):
                network.load_state_dict(self._uploaded(stage.teacher, network))
            example = self.job.teacher_contract.blank(self.device)
            return Tapped(network, example, "/teacher", self.job.teacher_reads, self.job.task.check_output)
        with torch.random.fork_rng([]):  # the student's connectors must not depend on how the teacher was built
            network = self.deployed(stage.teacher.removeprefix("stage:"))
        return self._tapped(freeze(network), "/teacher")

    def _tapped(self, network: nn.Module, pointer: str) -> Tapped:
        return Tapped(network, self._example(), pointer, check_output=self.job.task.check_output)

    def _uploaded(self, place: str, network: nn.Module) -> dict[str, Tensor]:
        identifier = place.removeprefix(FILE)
        if identifier not in self.job.files:
            raise SpecError(
                [Problem("/procedure", f"refers to the file {identifier}, which is not among the job's `files`")]
            )
        try:
            return match(load_file(self.job.files[identifier]), network, "the teacher")
        except UploadError as error:
            message = f"the file {identifier} does not contain weights of the teacher's network: {error.message}"
            raise SpecError([Problem("/procedure", message)], error.hint) from error

    def _example(self) -> Tensor:
        return self.job.contract.blank(self.device)

    def initial(self, stage: Stage, name: str) -> nn.Module:
        """A member's network with its initial weights."""
        member = stage.members[name]
        seed_all(seed_for(self.plan.seed, stage.seeded_by, name, "initial"))
        if member.initial and member.initial.startswith("stage:"):
            return self._continued(member.initial.removeprefix("stage:"))
        network = self._fresh(member)
        if member.initial in (GIVEN, PRETRAINED) and (file := self.job.pretrained(member.network_pointer)):
            network.load_state_dict(pretrained_weights(network, file, self.job, member.network_pointer))
            return network
        path = self.job.path("initial_weights")
        if member.initial != GIVEN:
            return network
        if begin := FROM_TEACHER.get(self.job.initial_weights):
            network.load_state_dict(begin(network, self._example(), given_teacher(self.teacher).state_dict()))
        elif path is not None:
            network.load_state_dict(self._given_weights(path, network, member.network))
        return network

    def _continued(self, place: str) -> nn.Module:
        """A finished network to train on: with its structure and its weights, and without tables of codes."""
        network = self._fresh(self.member(place))
        rebuild(network, structural(self.entries_at(place)))
        network.to(self.device)
        weights = self.checkpoints.thaw(network_part(place))
        network.load_state_dict({name: weights[name] for name in network.state_dict()})
        return network.requires_grad_(True)

    @staticmethod
    def _given_weights(path: Path, network: nn.Module, name: str) -> dict[str, Tensor]:
        try:
            return match(load_file(path), network, f"`{name}`")
        except UploadError as error:
            raise SpecError([Problem("/student/initial_weights", error.message)], error.hint) from error

    def _fresh(self, member: Member) -> nn.Module:
        return build_network(member, self.job).to(self.device)

    def _finished(self, name: str) -> Stage:
        """A finished stage as plain data, found by replaying the procedure."""
        for count, result in enumerate(self.history):
            stage = self.procedure.next(tuple(self.history[:count]), self.plan)
            if result.name == name and stage is not None:
                return stage
        raise SpecError([Problem("/procedure", f"there is no finished stage {name!r}")])


def refuse_files_of_no_teacher(job: Job) -> None:
    """Check that the job has exactly one teacher, whose weights the procedure's files can hold.

    Raises:
        SpecError: the job has no finished teacher, or several.
    """
    if len(job.teachers) != 1:
        message = "must be exactly one uploaded network, because the procedure reads files of its weights"
        raise SpecError([Problem("/teacher", message)])


def pretrained_weights(network: nn.Module, file: Path, job: Job, pointer: str) -> dict[str, Tensor]:
    """The state dict of a network that begins with the pretrained weights of a file.

    Raises:
        SpecError: the file cannot be read, or does not fit the network.
    """
    try:
        given = read_state_dict(file)
    except UploadError as error:
        raise SpecError([Problem(f"{pointer}/initial_weights", f"{file.name}: {error.message}")], error.hint) from error
    return pretrained(network, given, job.classes, job.contract.channels, pointer)


def build_network(member: Member, job: Job) -> nn.Module:
    """Build a member's network with new weights, on torch's default device.

    Raises:
        SpecError: there is no such network, or it cannot be built for this job; pointers are relative to the job's spec.
    """
    try:
        if member.network == programs.NETWORK:
            return _build_program(member, job)
        return networks.build(member.network, job.classes, job.contract, dict(member.options))
    except SpecError as error:
        moved = [Problem(member.network_pointer + problem.pointer, problem.message) for problem in error.problems]
        raise SpecError(moved, error.hint) from error


def _build_program(member: Member, job: Job) -> nn.Module:
    if member.options.get(programs.FILE) != programs.LIKE_TEACHER:
        return programs.student(job.files, member.options, job.classes, job.contract)
    source = program_source(job.values, job.folder, job.classes, job.contract)
    return programs.student_like(source, member.options["width"], job.classes, job.contract)


def freeze(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose parameters do not require gradients."""
    return copy.deepcopy(network).eval().requires_grad_(False)
