"""The specs of an experiment's jobs, and where each part of them stands in the request."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import ValidationError

from api.experiments.schemas import MOST_JOBS, SEED, ExperimentSpec
from api.http.errors import Invalid
from models.spec.job_spec import JobSpec
from models.spec.problems import pointer_of, problems_of

MOST_NAME = 255
Change = tuple[str, str, Any, str]
"""A place in the spec, the name of the value, the value, and its pointer in the request."""


@dataclass(frozen=True)
class Planned:
    """One job: its variant, its body, and the pointers of the request from which parts of the body come."""

    variant: str
    body: dict[str, Any]
    origins: tuple[tuple[str, str], ...]

    def place_of(self, pointer: str) -> str:
        """The pointer in the request of a pointer in the job's spec."""
        for start, origin in sorted(self.origins, key=lambda pair: -len(pair[0])):
            if pointer == start or pointer.startswith(f"{start}/"):
                return origin + pointer[len(start) :]
            if start.startswith(f"{pointer}/"):
                return origin
        return f"/base{pointer}"


def planned(spec: ExperimentSpec) -> list[Planned]:
    """The jobs of an experiment, in the order of the variants and of the grid.

    Raises:
        Invalid: there are too many jobs, two variants have the same name, or a place is not in the spec.
    """
    axes = [list(_values(place, values)) for place, values in spec.grid.items()]
    count = max(1, len(spec.variants))
    for axis in axes:
        count *= len(axis)
    if count > MOST_JOBS:
        raise Invalid([("/grid", f"makes {count:,} jobs: at most {MOST_JOBS} are allowed")])
    variants = list(_variants(spec)) or [("", [])]
    jobs = [
        _one(spec, name, [*changes, *chosen]) for (name, changes), chosen in product(variants, list(product(*axes)))
    ]
    _require_distinct(jobs, "/variants" if spec.variants else "/grid")
    return jobs


def specs_of(jobs: Sequence[Planned]) -> list[JobSpec]:
    """The validated specs of jobs.

    Raises:
        Invalid: lists the problems of all jobs, each once, with their pointers in the request.
    """
    specs: list[JobSpec] = []
    problems: dict[tuple[str, str], None] = {}
    for job in jobs:
        try:
            specs.append(JobSpec.model_validate(job.body))
        except ValidationError as error:
            for problem in problems_of(error):
                problems[job.place_of(problem.pointer), problem.message] = None
    if problems:
        raise Invalid(list(problems))
    return specs


def _values(place: str, values: Mapping[str, Any] | Sequence[Any]) -> Iterator[Change]:
    """The values of an axis of the grid."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield place, name, value, pointer_of(("grid", place, name))
        return
    for number, value in enumerate(values):
        plain = isinstance(value, str | int | float) or value is None
        words = (value if isinstance(value, str) else json.dumps(value)) if plain else str(number + 1)
        yield place, f"{place.rpartition('.')[2]} {words}", value, pointer_of(("grid", place, number))


def _variants(spec: ExperimentSpec) -> Iterator[tuple[str, list[Change]]]:
    for number, variant in enumerate(spec.variants):
        changes = variant.changes.items()
        origin = ("variants", number, "changes")
        yield variant.name, [(place, "", value, pointer_of((*origin, place))) for place, value in changes]


def _one(spec: ExperimentSpec, variant: str, changes: Sequence[Change]) -> Planned:
    body = copy.deepcopy(spec.base)
    origins = []
    names = [variant] if variant else []
    seed = ""
    for place, name, value, origin in changes:
        start = _put(body, place.split("."), copy.deepcopy(value), origin)
        origins.append((start, origin))
        if place == SEED:
            seed = f", seed {value}"
        elif name:
            names.append(name)
    title = ", ".join(names) or "base"
    body.setdefault("name", f"{spec.name}: {title}{seed}"[:MOST_NAME])
    labels = body.setdefault("labels", {})
    if isinstance(labels, dict):
        body["labels"] = spec.labels | labels
    return Planned(title[:MOST_NAME], body, tuple(origins))


def _put(body: dict[str, Any], path: Sequence[str], value: Any, origin: str) -> str:
    """Set a value in a spec, and return its pointer there.

    Raises:
        Invalid: the place is within something that is neither an object nor a list, or beyond the end of a list.
    """
    at: Any = body
    parts: list[str | int] = []
    for number, part in enumerate(path):
        last = number == len(path) - 1
        key: Any = int(part) if isinstance(at, list) and part.isdecimal() else part
        parts.append(key)
        if isinstance(at, list) and (not isinstance(key, int) or key >= len(at)):
            raise Invalid([(origin, f"{'.'.join(path)} is not in the spec: the list has {len(at)} entries")])
        if not isinstance(at, dict | list):
            raise Invalid([(origin, f"{'.'.join(path)} is not in the spec: {path[number - 1]} has no fields")])
        if last:
            at[key] = value
        else:
            if isinstance(at, dict) and at.get(part) is None:
                at[part] = {}
            at = at[key]
    return pointer_of(parts)


def _require_distinct(jobs: Sequence[Planned], pointer: str) -> None:
    seen: set[tuple[str, str]] = set()
    for job in jobs:
        training = job.body.get("training")
        seed = str(training.get("seed")) if isinstance(training, dict) else ""
        if (job.variant, seed) in seen:
            raise Invalid(
                [(pointer, f"two jobs are the variant {job.variant!r} with the same seed: name them differently")]
            )
        seen.add((job.variant, seed))
