"""Checks of a job's objectives against its source, its task and the number of its ranks."""

from worker.distillation.errors import Problem, SpecError
from worker.distillation.objective import Objective
from worker.distillation.source import Source
from worker.distillation.task import Task
from worker.distillation.trainer.objective_sum import Composition


def check_division(composition: Composition, source: Source, ranks: int) -> None:
    """See that so many ranks can share the batches, and learn what one process would.

    Raises:
        SpecError: the source makes its batches as one, or an objective needs what cannot be gathered.
    """
    if ranks == 1:
        return
    place = "/resources/gpus"
    problems = [] if source.divides else [Problem(place, "the source synthesises its batches on one device")]
    for name, objective in zip(composition.names, composition.objectives, strict=True):
        needs = objective.active_needs
        if needs.batch_global and (needs.input_gradient or list(objective.adversary_parameters())):
            words = f"{name.split('#')[0]} relates all images of a batch, in a way that works on one device only"
            problems.append(Problem(place, words))
    if problems:
        raise SpecError(problems, "Ask for 1.")


def check_task(composition: Composition, source: Source, task: Task, outputs: int) -> None:
    """See that the objectives can be measured on networks of a task with so many outputs, and that the source makes
    batches for it.

    Raises:
        SpecError: they cannot, or it does not.
    """
    problems = []
    if outputs < task.least_outputs:
        words = f"must be at least {task.least_outputs} for the task {task.name}, not {outputs}"
        problems.append(Problem("/student/classes", words))
    if task.name not in source.tasks:
        words = f"makes batches for {', '.join(source.tasks)}, not for the task {task.name}"
        problems.append(Problem("/source", words))
    for place, objective in zip(composition.pointers, composition.objectives, strict=True):
        if task.name not in objective.active_needs.tasks:
            problems.append(Problem(f"{place}/name", _unsuitable(objective, task.name)))
    if problems:
        raise SpecError(problems)


def _unsuitable(objective: Objective, task: str) -> str:
    """Why an objective does not suit a task, and with which value of a parameter it would."""
    words = f"is for {', '.join(objective.active_needs.tasks)}, not for the task {task}"
    cases = ((f"{name} = {value}", then.get("needs")) for (name, value), then in objective.when.items())
    fitting = [setting for setting, needs in cases if needs is not None and task in needs.tasks]
    return f"{words}, unless with {fitting[0]}" if fitting else words
