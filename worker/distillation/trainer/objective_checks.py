"""Checks of a job's objectives against its source, its task and its number of ranks."""

from worker.distillation.errors import Problem, SpecError
from worker.distillation.objective import Objective
from worker.distillation.source import Source
from worker.distillation.task import Task
from worker.distillation.trainer.objective_sum import Composition


def check_division(composition: Composition, source: Source, ranks: int) -> None:
    """Check that batches can be divided over `ranks` ranks with the same result as in one process.

    Raises:
        SpecError: the source cannot divide its batches, or an objective needs tensors that cannot be gathered.
    """
    if ranks == 1:
        return
    place = "/resources/gpus"
    problems = [] if source.divides else [Problem(place, "must be 1: the source synthesises its batches on one device")]
    for name, objective in zip(composition.names, composition.objectives, strict=True):
        needs = objective.active_needs
        if needs.batch_global and (needs.input_gradient or list(objective.adversary_parameters())):
            message = f"must be 1: {name.split('#')[0]} relates all images of a batch, which works on one device only"
            problems.append(Problem(place, message))
    if problems:
        raise SpecError(problems, "Set resources/gpus to 1.")


def check_task(composition: Composition, source: Source, task: Task, outputs: int) -> None:
    """Check that the objectives and the source support the task, and that networks have enough `outputs` for it.

    Raises:
        SpecError: there are too few outputs, or the source or an objective does not support the task.
    """
    problems = []
    if outputs < task.least_outputs:
        message = f"must be at least {task.least_outputs} for the task {task.name}, not {outputs}"
        problems.append(Problem("/student/classes", message))
    if task.name not in source.tasks:
        message = f"makes batches for {', '.join(source.tasks)}, not for the task {task.name}"
        message += f": {task.no_synthesis}" if source.synthesises and task.no_synthesis else ""
        problems.append(Problem("/source", message))
    for place, objective in zip(composition.pointers, composition.objectives, strict=True):
        if task.name not in objective.active_needs.tasks:
            problems.append(Problem(f"{place}/name", _unsuitable(objective, task.name)))
    if problems:
        raise SpecError(problems)


def _unsuitable(objective: Objective, task: str) -> str:
    """Why an objective does not support a task, and the parameter value with which it does."""
    message = f"is for {', '.join(objective.active_needs.tasks)}, not for the task {task}"
    cases = ((f"{name} = {value}", then.get("needs")) for (name, value), then in objective.when.items())
    fitting = [setting for setting, needs in cases if needs is not None and task in needs.tasks]
    return f"{message}; set {fitting[0]}" if fitting else message
