"""The weight of an objective: a number, or a schedule over a stage's progress."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from worker.distillation.parameters import Example, Range, parse


@dataclass(frozen=True)
class WeightSchedule:
    """An objective's weight over a stage's progress, from 0 to 1.

    `linear` and `cosine` go from `start` to `end`, reach it at progress `until`, and stay there. The schedule `until` is
    `start` before that progress and `end` from it on. Epoch e of n ends at progress e / n.
    """

    schedule: Annotated[
        Literal["linear", "cosine", "until"],
        "Curve of the weight over the stage. `until` switches from `start` to `end` at the progress `until`.",
    ]
    start: Annotated[float, Range(ge=0), "Weight at the start of the stage.", Example(1.0)]
    end: Annotated[float, Range(ge=0), "Weight from the progress `until` on.", Example(0.0)] = 0.0
    until: Annotated[
        float, Range(gt=0, le=1), "Progress of the stage (0 to 1) at which the weight reaches `end`.", Example(0.5)
    ] = 1.0


@dataclass(frozen=True)
class ConstantWeight:
    """A constant weight of an objective."""

    weight: Annotated[float, Range(ge=0), "Factor of the objective's loss: a number or a schedule."] = 1.0


def check_weight(weight: Any, pointer: str) -> None:
    """Check that an objective's weight is a number of at least 0, or a schedule.

    Raises:
        SpecError: it is neither; `pointer` is the objective's place in the job's spec.
    """
    if isinstance(weight, Mapping):
        parse(WeightSchedule, weight, f"{pointer}/weight")
    else:
        parse(ConstantWeight, {"weight": weight}, pointer)


def weight_at(weight: float | Mapping[str, Any], progress: float) -> float:
    """An objective's weight at the stage's `progress` (0 to 1).

    `{"schedule": "linear" | "cosine", "start": a, "end": b, "until": 0.5}` goes from a to b over the first half of the
    stage and stays there; the schedule `"until"` is a before that point and b (default 0) from it on.
    """
    if not isinstance(weight, Mapping):
        return float(weight)
    start, end = float(weight["start"]), float(weight.get("end", 0.0))
    done = progress / float(weight.get("until", 1.0))
    if weight["schedule"] == "until":
        return start if done < 1 else end
    done = min(1.0, done)
    if weight["schedule"] == "cosine":
        done = 0.5 * (1 - math.cos(math.pi * done))
    return start + (end - start) * done
