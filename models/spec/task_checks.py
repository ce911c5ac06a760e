"""Checks of a job's dataset, source, objectives and student against its task."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from models.spec.catalogue import effective, known, needs_of, values_with
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
    """The catalogue's entry of a task."""
    return dict(known("tasks")[name])


def outputs_asked(dataset: DatasetFacts | None, task: str) -> int | None:
    """The number of outputs that a network needs for a dataset; None if it is unknown, or if any number is valid."""
    return dataset.classes or None if dataset and task_of(task)["labels_are_outputs"] else None


def reads_truth(objectives: Iterable[Mapping[str, Any]], task: str) -> bool:
    """Whether an objective reads the task's ground truth of each sample."""
    return any(task_of(task)["field"] in needs_of(one)["fields"] for one in objectives)


def default_objectives(task: str, provided: Iterable[str], taught: bool) -> list[dict[str, Any]]:
    """The default objectives of a task, by the fields that the source provides and whether there is a teacher."""
    entry = task_of(task)
    labelled = entry["field"] in provided
    if labelled and not taught:
        return [{**entry["ground_truth"], "weight": 1.0}]
    if labelled:
        return [dict(one) for one in entry["objective_defaults"]]
    without_labels = [one for one in entry["objective_defaults"] if entry["field"] not in needs_of(one)["fields"]]
    return [{**one, "weight": 1.0} for one in without_labels]


def check_task(resolved: Mapping[str, Any], facts: Facts, objectives: Iterable[Labelled]) -> Iterator[Problem]:
    """Everything in a resolved spec that does not suit its task."""
    task, source = resolved["task"], resolved["source"]
    entry, classes = task_of(task), resolved["student"]["classes"]
    if classes is not None and classes < entry["least_outputs"]:
        words = f"must be at least {entry['least_outputs']} for the task {task}"
        yield Problem("/student/classes", f"{words}; {ONE_LOGIT}" if classes == 1 and task == TASK else words)
    supported = known("sources")[source["name"]]["tasks"]
    if task not in supported:
        words = f"{source['name']!r} is for {listed(supported)}, not for the task {task}"
        why = entry["no_synthesis"] if known("sources")[source["name"]]["synthesises"] else ""
        words += f": {why}" if why else "; train on a dataset"
        yield Problem("/source", words)
    if source.get("sampler") == "per_class" and entry["labels"] != "class":
        yield Problem(
            "/source/sampler", f"`per_class` needs class labels, and the task {task} has none; set another sampler"
        )
    for pointer, objective in objectives:
        if task not in needs_of(objective)["tasks"]:
            yield Problem(pointer, _unsuitable(objective, task))
    unread = known("sources")[source["name"]].get("ignores_labels") or entry["field"] not in effective(
        "sources", source, "provides"
    )
    if not (unread and facts.dataset and facts.dataset.labels == "none"):
        yield from _check_labels("/dataset", facts.dataset, task)
    if resolved["evaluation"]:
        same = resolved["evaluation"]["dataset"] == resolved["dataset"]
        measured = facts.dataset if same else facts.evaluation
        if not same or (measured is not None and measured.labels == "none"):
            yield from _check_labels("/evaluation/dataset", measured, task)


def _check_labels(pointer: str, dataset: DatasetFacts | None, task: str) -> Iterator[Problem]:
    wanted = task_of(task)["labels"]
    if dataset is None or not dataset.inspected or dataset.labels == wanted:
        return
    if dataset.labels == "none":
        words = "has no labels; its images serve the source `substitute` only"
        if pointer != "/dataset":
            words = "has no labels, with which the student's outputs could be compared; name a dataset with labels"
        yield Problem(pointer, words)
        return
    fitting = [name for name, entry in known("tasks").items() if entry["labels"] == dataset.labels]
    words = f"has labels of the kind {dataset.labels}, but the task {task} needs {wanted}"
    yield Problem(pointer, f"{words}; set task to {listed(fitting)}, or use another dataset")


def _unsuitable(objective: Mapping[str, Any], task: str) -> str:
    """Why an objective does not suit a task, and the parameter value with which it would."""
    words = f"{objective['name']} is for {listed(needs_of(objective)['tasks'])}, not for the task {task}"
    for parameter, value, needs in values_with("objectives", objective["name"], "needs"):
        if task in needs["tasks"]:
            return f"{words}; set `{parameter}` to {value!r}"
    return f"{words}; remove it"


def listed(names: Iterable[str]) -> str:
    """Alternative names for a sentence: `a or b or c`."""
    return " or ".join(names)
