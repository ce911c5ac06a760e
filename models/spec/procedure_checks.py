"""What a job's procedure asks of the rest of it, and the objectives that it fills in."""

from collections.abc import Iterator, Mapping
from typing import Any

from models.spec.catalogue import decided_by, effective
from models.spec.defaults import method
from models.spec.problems import Problem, pointer_of
from models.spec.task_checks import listed

Placed = tuple[str, Mapping[str, Any]]
"""An objective's place in the spec, and the objective."""


def filled_objectives(procedure: Mapping[str, Any]) -> Iterator[Placed]:
    """The objectives that a resolved procedure's parameters which are null stand for, each at the place of the value that
    fills it in, such as a preset."""
    place = pointer_of(["procedure", decided_by("procedures", procedure, "fills") or "name"])
    for parameter, objectives in effective("procedures", procedure, "fills").items():
        if procedure[parameter] is None:
            for objective in objectives:
                yield place, method("objectives", objective)


def check_procedure(resolved: Mapping[str, Any], gives_labels: bool) -> Iterator[Problem]:
    """All that a resolved job lacks for its procedure; `gives_labels` says whether its source gives those of a dataset."""
    procedure = resolved["procedure"]
    name, place = procedure["name"], "/procedure"
    needs = effective("procedures", procedure, "needs")
    if (parameter := decided_by("procedures", procedure, "needs")) is not None:
        name, place = f"{name} with `{parameter}` = {procedure[parameter]!r}", pointer_of(["procedure", parameter])
    if needs["held_out_images"] and not resolved["training"]["validation_fraction"]:
        words = f"{name} chooses by labelled images that are held out of a dataset"
        if gives_labels:
            yield Problem("/training/validation_fraction", f"must be greater than 0: {words}")
        else:
            yield Problem(place, f"{words}, and the source {resolved['source']['name']!r} gives none")
    if resolved["task"] not in needs["tasks"]:
        yield Problem(place, f"{name} is for {listed(needs['tasks'])}, not for the task {resolved['task']}")
