"""What a job's procedure asks of the rest of it, and the objectives that it fills in."""

from collections.abc import Iterator, Mapping
from typing import Any

from models.spec.catalogue import known
from models.spec.defaults import method
from models.spec.problems import Problem, pointer_of
from models.spec.task_checks import listed

Placed = tuple[str, Mapping[str, Any]]
"""An objective's place in the spec, and the objective."""


def filled_objectives(procedure: Mapping[str, Any]) -> Iterator[Placed]:
    """The objectives that a resolved procedure's parameters which are null stand for, each at the place of the value that
    fills it in, such as a preset."""
    for case in known("procedures")[procedure["name"]].get("fills_when", ()):
        if procedure[case["parameter"]] != case["value"]:
            continue
        for parameter, objectives in case["objectives"].items():
            if procedure[parameter] is None:
                for objective in objectives:
                    yield pointer_of(["procedure", case["parameter"]]), method("objectives", objective)


def check_procedure(resolved: Mapping[str, Any], gives_labels: bool) -> Iterator[Problem]:
    """All that a resolved job lacks for its procedure; `gives_labels` says whether its source gives those of a dataset."""
    name, place = resolved["procedure"]["name"], "/procedure"
    entry = known("procedures")[name]
    needs = entry.get("needs", {})
    for case in entry.get("needs_when", ()):
        if resolved["procedure"][case["parameter"]] == case["value"]:
            needs, place = case["needs"], pointer_of(["procedure", case["parameter"]])
            name = f"{name} with `{case['parameter']}` = {case['value']!r}"
    if needs.get("held_out_images") and not resolved["training"]["validation_fraction"]:
        words = f"{name} chooses by labelled images that are held out of a dataset"
        if gives_labels:
            yield Problem("/training/validation_fraction", f"must be greater than 0: {words}")
        else:
            yield Problem(place, f"{words}, and the source {resolved['source']['name']!r} gives none")
    if needs and resolved["task"] not in needs["tasks"]:
        yield Problem(place, f"{name} is for {listed(needs['tasks'])}, not for the task {resolved['task']}")
