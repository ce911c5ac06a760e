"""What a job's task asks of its dataset, its source, its objectives and its student."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from models.spec.catalogue import known, needs_of, values_with
from models.spec.facts import DatasetFacts, Facts
from models.spec.problems import Problem

TASK = "classification"
Labelled = tuple[str, Mapping[str, Any]]
"""An objective's place in the spec, and the objective."""
ONE_LOGIT = (
    "one output, such as a logit with a sigmoid, is the task `multi_label` with one label: set `task` to `multi_label`, and"
    " label images with a matrix of one column"
)


def task_of(name: str) -> Mapping[str, Any]:
    """What the catalogue says of a task."""
    return dict(known("tasks")[name])


def outputs_asked(dataset: DatasetFacts | None, task: str) -> int | None:
    """How many outputs a network needs for a dataset; None where that is unknown, or any number will do."""
    return dataset.classes if dataset and task_of(task)["labels_are_outputs"] else None


def reads_truth(objectives: Iterable[Mapping[str, Any]], task: str) -> bool:
    """Whether an objective reads what the task says of each sample."""
    return any(task_of(task)["field"] in needs_of(one)["fields"] for one in objectives)


def default_objectives(task: str, provided: Iterable[str], taught: bool) -> list[dict[str, Any]]:
    """The objectives of a job that names none: with what the source provides, and perhaps a teacher."""
    entry = task_of(task)
    labelled = entry["field"] in provided
    if labelled and not taught:
        return [{**entry["ground_truth"], "weight": 1.0}]
    if labelled:
        return [dict(one) for one in entry["objective_defaults"]]
    blind = [one for one in entry["objective_defaults"] if entry["field"] not in needs_of(one)["fields"]]
    return [{**one, "weight": 1.0} for one in blind]


def check_task(resolved: Mapping[str, Any], facts: Facts, objectives: Iterable[Labelled]) -> Iterator[Problem]:
    """All that does not suit the task."""
    task, source = resolved["task"], resolved["source"]
    entry, classes = task_of(task), resolved["student"]["classes"]
    if classes is not None and classes < entry["least_outputs"]:
        words = f"must be at least {entry['least_outputs']} for the task {task}, not {classes}"
        yield Problem("/student/classes", f"{words}; {ONE_LOGIT}" if classes == 1 else words)
    makes_for = known("sources")[source["name"]]["tasks"]
    if task not in makes_for:
        words = f"{source['name']!r} makes batches for {listed(makes_for)}, not for the task {task}; give a dataset"
        yield Problem("/source", words)
    if source.get("sampler") == "per_class" and entry["labels"] != "class":
        yield Problem("/source/sampler", f"draws images by their class, and the task {task} has none")
    for pointer, objective in objectives:
        if task not in needs_of(objective)["tasks"]:
            yield Problem(pointer, _unsuitable(objective, task))
    yield from _check_labels("/dataset", facts.dataset, task)
    if resolved["evaluation"] and resolved["evaluation"]["dataset"] != resolved["dataset"]:
        yield from _check_labels("/evaluation/dataset", facts.evaluation, task)


def _check_labels(pointer: str, dataset: DatasetFacts | None, task: str) -> Iterator[Problem]:
    wanted = task_of(task)["labels"]
    if dataset is None or not dataset.inspected or dataset.labels == wanted:
        return
    fitting = [name for name, entry in known("tasks").items() if entry["labels"] == dataset.labels]
    words = f"holds labels of the kind {dataset.labels}, and the task {task} reads {wanted}"
    yield Problem(pointer, f"{words}; set task to {listed(fitting)}, or name another dataset")


def _unsuitable(objective: Mapping[str, Any], task: str) -> str:
    """Why an objective does not suit a task, and with which value of a parameter it would."""
    words = f"{objective['name']} is for {listed(needs_of(objective)['tasks'])}, not for the task {task}"
    for parameter, value, needs in values_with("objectives", objective["name"], "needs"):
        if task in needs["tasks"]:
            return f"{words}; set `{parameter}` to {value!r}"
    return f"{words}; leave it out"


def listed(names: Iterable[str]) -> str:
    """Names in a sentence, any of which will do."""
    return " or ".join(names)
