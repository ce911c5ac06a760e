"""Checks of a job's transforms: their order, and what they need of the rest of the spec."""

from collections.abc import Iterator, Mapping
from typing import Any

from models.spec.catalogue import choices, known
from models.spec.problems import Problem, pointer_of

CODED_EXPORTS = ("packed", "huffman")


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
        yield from _check_images(pointer, name, entry, resolved)
        if not entry["averages"] and resolved["training"]["average_weights"] is not None:
            words = f"must be null: {name} begins to change weights late, so that their average is of different things"
            yield Problem("/training/average_weights", words)
    if not any(known("transforms")[name]["encodes"] for name in names):
        for index, name in enumerate(resolved["exports"]):
            if name in CODED_EXPORTS:
                words = f"needs a transform that stores weights as codes: {', '.join(_encoding())}"
                yield Problem(pointer_of(["exports", index]), words)


def _encoding() -> list[str]:
    return [name for name, entry in known("transforms").items() if entry["encodes"]]


def _check_images(pointer: str, name: str, entry: Mapping[str, Any], resolved: Mapping[str, Any]) -> Iterator[Problem]:
    source = resolved["source"]["name"]
    if entry["calibration_images"] and not known("sources")[source]["calibrates"]:
        words = (
            f"{name} measures activations on training images, and those of the source {source!r} resemble no real ones"
        )
        yield Problem(pointer, f"{words}; use a dataset, or a source that synthesises images from the teacher")
