"""Checks of what a job's procedure needs, and the objectives that the procedure fills in."""

from collections.abc import Iterator, Mapping
from typing import Any

from models.spec.catalogue import decided_by, effective, known
from models.spec.defaults import method
from models.spec.problems import Problem, pointer_of
from models.spec.task_checks import listed

Placed = tuple[str, Mapping[str, Any]]
"""An objective's place in the spec, and the objective."""


def filled_objectives(procedure: Mapping[str, Any]) -> Iterator[Placed]:
    """The objectives that a resolved procedure uses for its null parameters, each with the pointer of the value that
    fills it in, such as a preset."""
    place = pointer_of(["procedure", decided_by("procedures", procedure, "fills") or "name"])
    for parameter, objectives in effective("procedures", procedure, "fills").items():
        if procedure[parameter] is None:
            for objective in objectives:
                yield place, method("objectives", objective)


def check_procedure(resolved: Mapping[str, Any], gives_labels: bool) -> Iterator[Problem]:
    """Problems of a resolved job with its procedure; `gives_labels` says whether its source provides a dataset's
    labels."""
    procedure = resolved["procedure"]
    name, place = procedure["name"], "/procedure"
    needs = effective("procedures", procedure, "needs")
    if (parameter := decided_by("procedures", procedure, "needs")) is not None:
        name, place = f"{name} with `{parameter}` = {procedure[parameter]!r}", pointer_of(["procedure", parameter])
    if needs["held_out_images"] and not resolved["training"]["validation_fraction"]:
        words = f"{name} needs labelled images held out of a dataset"
        if gives_labels:
            yield Problem("/training/validation_fraction", f"must be greater than 0: {words}")
        else:
            yield Problem(place, f"{words}, and the source {resolved['source']['name']!r} provides none")
    if needs["synthesised_images"]:
        if not known("sources")[resolved["source"]["name"]]["synthesises"]:
            words = f"{name} needs a source that makes its images, and {resolved['source']['name']!r} draws them from a dataset"
            yield Problem("/source", words)
        elif resolved["training"]["steps"] is None:
            yield Problem("/training/steps", f"is required in place of epochs: {name} counts steps")
    if resolved["task"] not in needs["tasks"]:
        yield Problem(place, f"{name} is for {listed(needs['tasks'])}, not for the task {resolved['task']}")
