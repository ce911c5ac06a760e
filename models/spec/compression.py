"""Transforms and budgets in a spec: their checks, a budget's defaults, and what the check of a spec has chosen for it."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from pydantic import Field, model_validator

from models.spec.body import Body
from models.spec.catalogue import choices, effective, known, part
from models.spec.problems import Problem, complaint, pointer_of
from models.spec.schema_types import part_model

CHOSEN = "chosen"
POINTER = "/student/budget"
RUN = "onnx"
"""The only file whose time is measured."""
CODED_EXPORTS = ("packed", "huffman")

if TYPE_CHECKING:
    # its fields are known only at run time: the engine declares them
    DeclaredBudget: TypeAlias = Body
else:
    DeclaredBudget = part_model("budget")


class BudgetSpec(DeclaredBudget):
    """The largest file and the longest time of the student. The service chooses the largest student that keeps both, when it checks
    the spec."""

    chosen: dict[str, Any] | None = Field(
        None,
        description="What was chosen: bytes and milliseconds measured before the training, and everything that was tried. Filled in the "
        "resolved spec; you need not send it. If it is set, nothing is chosen.",
        examples=[None],
    )

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        given = dict(self)
        problems = []
        if given["bytes"] is None and given["milliseconds"] is None:
            problems.append(Problem("", "limits nothing: set `bytes`, `milliseconds` or both"))
        if given["milliseconds"] is not None and given["file"] != RUN:
            problems.append(Problem("/milliseconds", f"must be null: a file `{given['file']}` is not run"))
        if len(set(given["allow"])) != len(given["allow"]):
            problems.append(Problem("/allow", "must name each once"))
        if problems:
            raise complaint(*problems)
        return self


def resolved_budget(user: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved student for its budget; nothing if it has none."""
    given = user.get("budget")
    if not given:
        return {}
    properties = part("budget")["parameters"]["properties"]
    full = {name: given.get(name, schema["default"]) for name, schema in properties.items()}
    return {"budget": full | ({CHOSEN: given[CHOSEN]} if given.get(CHOSEN) else {})}


def plans(resolved: Mapping[str, Any]) -> bool:
    """Whether the check of a resolved spec has to choose its student, which takes much longer than other checks."""
    budget = (resolved.get("student") or {}).get("budget")
    return budget is not None and not budget.get(CHOSEN)


def with_choice(resolved: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved spec with what its check has chosen, if it has chosen anything."""
    chosen = facts.get(CHOSEN)
    if not chosen:
        return dict(resolved)
    return {
        **resolved,
        "student": {**resolved["student"], **chosen["student"]},
        "transforms": chosen["transforms"],
        "reasons": {**resolved["reasons"], **chosen["reasons"]},
    }


def check_budget(resolved: Mapping[str, Any]) -> Iterator[Problem]:
    """The problems of a budget with the rest of the spec."""
    budget = resolved["student"].get("budget")
    if not budget or budget.get(CHOSEN):
        return
    if budget["file"] not in resolved["exports"]:
        yield Problem("/exports", f"must include `{budget['file']}`, the file of the student's budget")
    used = [each["name"] for each in resolved["transforms"]]
    for index, name in enumerate(budget["allow"]):
        pointer = f"{POINTER}/allow/{index}"
        if name in used:
            yield Problem(pointer, f"{name} is among `transforms` already")
        if name in known("transforms"):
            yield from _check_images(pointer, {"name": name}, resolved)


def check_transforms(resolved: Mapping[str, Any]) -> Iterator[Problem]:
    """The problems of the transforms, and of the exports that only they give something to write."""
    order, names = choices("order_of_transforms"), [each["name"] for each in resolved["transforms"]]
    for index, name in enumerate(names):
        pointer, earlier, entry = pointer_of(["transforms", index]), names[:index], known("transforms")[name]
        if name in earlier:
            yield Problem(pointer, f"{name} can be used once")
        late = [other for other in earlier if order.index(other) > order.index(name)]
        if late:
            yield Problem(pointer, f"{name} must come before {late[0]}; the order is {', '.join(order)}")
        yield from _check_images(pointer, resolved["transforms"][index], resolved)
        if not entry["averages"] and resolved["training"]["average_weights"] is not None:
            words = f"must be null: {name} begins to change weights late, so that their average is of different things"
            yield Problem("/training/average_weights", words)
    budget = resolved["student"].get("budget") or {}
    names += [name for name in budget.get("allow") or () if name in known("transforms")]  # they may be added
    if not any(known("transforms")[name]["encodes"] for name in names):
        for index, name in enumerate(resolved["exports"]):
            if name in CODED_EXPORTS:
                words = f"needs a transform that stores weights as codes: {', '.join(_encoding())}"
                yield Problem(pointer_of(["exports", index]), words)


def _encoding() -> list[str]:
    return [name for name, entry in known("transforms").items() if entry["encodes"]]


def _check_images(pointer: str, transform: Mapping[str, Any], resolved: Mapping[str, Any]) -> Iterator[Problem]:
    source, name = resolved["source"]["name"], transform["name"]
    if effective("transforms", transform, "calibration_images") and not known("sources")[source]["calibrates"]:
        words = (
            f"{name} measures activations on training images, and those of the source {source!r} resemble no real ones"
        )
        yield Problem(pointer, f"{words}; use a dataset, or a source that synthesises images from the teacher")
