"""An objective's weight in the sum: a number, or a schedule over the stage."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from worker.distillation.parameters import Range, parse


@dataclass(frozen=True)
class WeightSchedule:
    """A weight over a stage's progress, from 0 to 1; see `weight_at`. Epoch e of n ends at the progress e / n."""

    schedule: Literal["linear", "cosine", "until"]
    start: Annotated[float, Range(ge=0)]
    end: Annotated[float, Range(ge=0)] = 0.0
    until: Annotated[float, Range(gt=0, le=1)] = 1.0


@dataclass(frozen=True)
class ConstantWeight:
    weight: Annotated[float, Range(ge=0)] = 1.0


def check_weight(weight: Any, pointer: str) -> None:
    """See that an objective's weight is a number of at least 0, or a schedule.

    Raises:
        SpecError: it is not; `pointer` is the objective's place in the job's spec.
    """
    if isinstance(weight, Mapping):
        parse(WeightSchedule, weight, f"{pointer}/weight")
    else:
        parse(ConstantWeight, {"weight": weight}, pointer)


def weight_at(weight: float | Mapping[str, Any], progress: float) -> float:
    """An objective's weight: a number, or a schedule over the stage's `progress` from 0 to 1.

    `{"schedule": "linear" | "cosine", "start": a, "end": b, "until": 0.5}` goes from a to b over the first half and
    stays; `"until"` is a before that moment and b (0 by default) after it.
    """
    if not isinstance(weight, Mapping):
        return float(weight)
    start = float(weight["start"])
    end = float(weight.get("end", 0.0))
    done = progress / float(weight.get("until", 1.0))
    if weight["schedule"] == "until":
        return start if done < 1 else end
    done = min(1.0, done)
    if weight["schedule"] == "cosine":
        done = 0.5 * (1 - math.cos(math.pi * done))
    return start + (end - start) * done
