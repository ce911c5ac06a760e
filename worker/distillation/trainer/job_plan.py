"""A job's procedure, and the stages that it plans."""

from worker.distillation import programs, registry
from worker.distillation.initial_weights.from_teacher import FROM_TEACHER
from worker.distillation.job import Job
from worker.distillation.planning.teacher_first import TeacherFirst, trained_teacher
from worker.distillation.procedure import GIVEN, Member, Plan, Procedure, Stage, StageResult
from worker.distillation.training import DEFAULT_EPOCHS

MOST_STAGES = 1000


def make_procedure(job: Job) -> tuple[Procedure, Plan]:
    """The job's procedure, and the plan that the procedure reads.

    Raises:
        SpecError: the job lacks something that the procedure needs.
    """
    spec = job.spec
    training = job.training
    student = Member(
        network=spec["student"]["network"],
        options=programs.student_options(spec["student"]),
        objectives=tuple(spec["objectives"]),
        initial=GIVEN,
        transforms=tuple(spec.get("transforms") or ()),
    )
    procedure = registry.make("procedures", spec["procedure"], "/procedure")
    first = trained_teacher(spec)
    plan = Plan(
        student=student,
        teacher=GIVEN if job.teacher or first else None,
        epochs=training.epochs or (None if training.steps else DEFAULT_EPOCHS),
        steps=training.steps,
        seed=training.seed,
        task=job.task.name,
        learning_rate=training.learning_rate,
        held_out=training.validation_fraction > 0,
        synthesises=registry.find("sources", spec["source"]["name"], "/source").synthesises,
        sliced=job.initial_weights in FROM_TEACHER,
    )
    procedure.check(plan)
    return TeacherFirst(procedure, first) if first else procedure, plan


def planned_stages(procedure: Procedure, plan: Plan, history: list[StageResult]) -> list[Stage]:
    """Finished, running and future stages, as far as they can be known before future stages have results."""
    done: list[StageResult] = []
    stages: list[Stage] = []
    while len(stages) < MOST_STAGES:
        stage = procedure.next(tuple(done), plan)
        if stage is None:
            break
        stages.append(stage)
        known = history[len(done)] if len(done) < len(history) else None
        done.append(known or StageResult(stage.name, 0, {}, stage.snapshots))
    return stages
