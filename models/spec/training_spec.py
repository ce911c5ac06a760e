"""The `training` part of a job's spec: length, optimiser and learning rate."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from pydantic import model_validator

from models.spec.body import Body
from models.spec.catalogue import limit, part
from models.spec.problems import Problem, complaint
from models.spec.schema_types import part_model

EPOCHS = limit("default_epochs")
"""Number of epochs if neither the user nor the source sets a length."""

PROPERTIES: Mapping[str, Any] = part("training")["parameters"]["properties"]
BY_OPTIMIZER: dict[str, dict[str, float]] = {
    "sgd": {"learning_rate": 0.05, "weight_decay": 5e-4},
    "adam": {"weight_decay": 0.0},
}
"""Defaults by optimiser, where they differ from the engine's defaults."""
OPTIMIZER_DEFAULTS: dict[str, dict[str, float]] = {
    optimizer: {name: PROPERTIES[name]["default"] for name in ("learning_rate", "weight_decay")}
    | BY_OPTIMIZER.get(optimizer, {})
    for optimizer in PROPERTIES["optimizer"]["enum"]
}


def _of_the_optimizer(name: str) -> dict[str, Any]:
    """The request's schema of a number whose default depends on the optimiser: it may be null."""
    values = ", ".join(f"{defaults[name]:g} for {optimizer}" for optimizer, defaults in OPTIMIZER_DEFAULTS.items())
    described = f"{PROPERTIES[name]['description']} If null: {values}."
    apart = ("description", "examples", "default")
    number = {key: value for key, value in PROPERTIES[name].items() if key not in apart}
    null = {"anyOf": [number, {"type": "null"}], "default": None}
    return null | {"description": described, "examples": PROPERTIES[name]["examples"]}


if TYPE_CHECKING:
    # the fields are known only at run time: the engine declares them
    Declared: TypeAlias = Body
else:
    Declared = part_model("training", **{name: _of_the_optimizer(name) for name in ("learning_rate", "weight_decay")})


class TrainingSpec(Declared):
    """Length, optimiser and learning rate of the student's training. A source may have its own defaults."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = dict(self)
        if given["epochs"] is not None and given["steps"] is not None:
            raise complaint(Problem("/steps", "set `epochs` or `steps`, not both"))
        if sorted(set(given["milestones"])) != given["milestones"]:
            raise complaint(Problem("/milestones", "must be in increasing order, without repeats"))
        if given["selection"] == "average" and given["average_weights"] is None:
            raise complaint(
                Problem("/average_weights", "is required if selection is `average`: the decay of the running average")
            )
        return self
