"""Whether a state dict is the one of a network, and of which network it is if not."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError, UploadError

PREFIXES = ("module.", "model.", "_orig_mod.")
"""What DataParallel, training frameworks and `torch.compile` put before all names."""
LISTED_AT_MOST = 8


def strip_prefixes(state: Mapping[str, Any]) -> dict[str, Any]:
    """The same with every prefix taken off that all names share."""
    stripped = dict(state)
    while stripped:
        prefix = next(
            (each for each in PREFIXES if all(name.startswith(each) and name != each for name in stripped)), None
        )
        if prefix is None:
            break
        stripped = {name.removeprefix(prefix): value for name, value in stripped.items()}
    return stripped


def match(
    state: Mapping[str, Tensor],
    network: nn.Module,
    name: str = "the network",
    alternatives: Callable[[], Sequence[str]] = tuple,
) -> dict[str, Tensor]:
    """The state dict with the network's own names, types and layout, in copies of its own.

    Counters of batches that old checkpoints lack (`num_batches_tracked`) are zero. `alternatives` is asked for other
    networks that would fit only if this one does not.

    Raises:
        UploadError: names or shapes differ; it lists them, at most 8 of each kind.
    """
    expected = network.state_dict()
    own = dict(zip(strip_prefixes(expected), expected, strict=True))
    given = {own.get(key, key): tensor for key, tensor in strip_prefixes(state).items()}
    complaints = list(_complaints(given, expected))
    if complaints:
        fitting = alternatives()
        hint = (
            f"They fit {' and '.join(fitting)}: upload with that network."
            if fitting
            else "Upload the state dict of the network that you name."
        )
        error = UploadError(f"the weights are not those of {name}: {'; '.join(complaints)}", hint)
        error.problems = tuple(Problem("", complaint) for complaint in complaints)
        raise error
    return {key: _like(key, given.get(key), tensor) for key, tensor in expected.items()}


def _complaints(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Iterable[str]:
    missing = [key for key in expected if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in expected]
    both = [key for key in given if key in expected]
    shapes = [
        f"{key} is {tuple(given[key].shape)} and should be {tuple(expected[key].shape)}"
        for key in both
        if given[key].shape != expected[key].shape
    ]
    types = [
        f"{key} is {given[key].dtype}"
        for key in both
        if expected[key].is_floating_point() and not given[key].is_floating_point()
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes, "not of floating point": types}
    return (_listed(kind, found) for kind, found in kinds.items() if found)


def _listed(kind: str, found: Sequence[str]) -> str:
    more = f" and {len(found) - LISTED_AT_MOST} more" if len(found) > LISTED_AT_MOST else ""
    return f"{len(found)} {kind} ({', '.join(each[:120] for each in found[:LISTED_AT_MOST])}{more})"


def _like(key: str, given: Tensor | None, expected: Tensor) -> Tensor:
    if given is None:
        return torch.zeros(expected.shape, dtype=expected.dtype)
    value = given.to(dtype=expected.dtype, copy=True, memory_format=torch.contiguous_format)
    if not bool(torch.isfinite(value).all()):
        raise UploadError(
            f"the tensor `{key}` has values too large for {expected.dtype}", "Save the weights as float32."
        )
    return value


def fitting(
    state: Mapping[str, Tensor], build: Callable[[str, int], nn.Module], names: Iterable[str], classes: int
) -> list[str]:
    """Which named networks have exactly these names and shapes, with `classes` or as many as the last tensor has rows.

    `build(name, classes)` makes a network; it is called on the meta device, where networks cost no memory.
    """
    last = next(reversed(list(state.values())), None)
    counts = dict.fromkeys([classes, *([len(last)] if last is not None and last.dim() else [])])
    shapes = {
        key: tensor.shape for key, tensor in strip_prefixes(state).items() if not key.endswith("num_batches_tracked")
    }
    found = []
    for name in names:
        count = next((count for count in counts if count > 0 and shapes == _meta_shapes(build, name, count)), None)
        if count is not None:
            found.append(f"`{name}`" if count == classes else f"`{name}` with {count} classes")
    return found


def _meta_shapes(build: Callable[[str, int], nn.Module], name: str, classes: int) -> dict[str, torch.Size] | None:
    """Shapes by name, or None where the network cannot be built so: it cannot be the one that was uploaded then."""
    try:
        with torch.device("meta"):
            state = build(name, classes).state_dict()
    except SpecError:
        return None
    return {
        key: tensor.shape for key, tensor in strip_prefixes(state).items() if not key.endswith("num_batches_tracked")
    }
