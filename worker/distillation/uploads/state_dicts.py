"""Weights that strangers sent: what they are is decided by their content, and nothing in them is ever run.

`weights_file/` reads the containers, `candidates.py` finds what could be a network, `key_matching.py` takes what fits one.
docs/decisions/reading-weights.md says how and why.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.candidates import Candidate, candidates
from worker.distillation.uploads.checked_tensor import checked
from worker.distillation.uploads.key_matching import LISTED_AT_MOST, strip_prefixes
from worker.distillation.uploads.selection import allows, is_averaged
from worker.distillation.uploads.weights_file import foreign
from worker.distillation.uploads.weights_file.contents import SAVE_STATE_DICT, Contents
from worker.distillation.uploads.weights_file.leaves import Leaf, Strided, numel
from worker.distillation.uploads.weights_file.opening import opened
from worker.distillation.uploads.weights_file.rebuilding import QUANTISED

OVERLAP = 4
"""How many times a storage's bytes its tensors may hold together."""
SMALL = 2**20
ORDINARY = frozenset(
    {
        "_codecs.encode",
        "builtins.set",
        "numpy.dtype",
        "numpy._core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
    }
)
"""Calls of plain data that need no mention."""


@dataclass(frozen=True)
class OpenFile:
    """A file of weights and all that could be a network in it."""

    container: str
    candidates: list[Candidate]
    not_run: tuple[str, ...] = ()
    """Classes and functions that the file asks to be called and that this reader does not know. None was looked up."""


@contextmanager
def open_weights(path: Path, limits: UploadLimits) -> Iterator[OpenFile]:
    """A file of weights; its tensors can be read until the end of the block.

    Raises:
        UploadError: the file is of no kind that is read, or holds no tensors by name.
    """
    with opened(path, limits) as contents:
        found = candidates(contents.root, limits)
        if not found:
            foreign.refuse_classes(contents.classes)
            raise UploadError(f"the file holds no state dict{_what_else(contents)}", SAVE_STATE_DICT)
        if any(len(each.tensors) > limits.tensors for each in found):
            raise UploadError(f"the file holds more than the {limits.tensors} tensors that are read", SAVE_STATE_DICT)
        if any("._packed_params" in name for each in found for name in each.tensors):
            raise UploadError("the file holds the state dict of a quantised network, which is not read", QUANTISED)
        yield OpenFile(contents.container, found, tuple(sorted(contents.classes - ORDINARY)))


def _what_else(contents: Contents) -> str:
    """The keys of a file without tensors, and the objects that it asks for."""
    root = contents.root if type(contents.root) is dict else {}
    keys = [repr(key[:40]) for key in root if type(key) is str][:LISTED_AT_MOST]
    objects = [f"`{name[:80]}`" for name in sorted(contents.classes - ORDINARY)][:LISTED_AT_MOST]
    listed = [*keys, *([f"objects ({', '.join(objects)}), none of which was made"] if objects else [])]
    return f", but {', '.join(listed)}" if listed else ""


def read_state_dict(path: Path, limits: UploadLimits | None = None, choice: str = "auto") -> dict[str, Tensor]:
    """The state dict in a file of weights: finite tensors on the CPU by name, half precision widened to float32.

    Of several, the one with the most tensors is read that `choice` allows (`auto`, `raw`, `averaged` or a path). Names of
    one tensor share their memory. Prefixes that wrappers add to all names (`module.`, `model.`, `_orig_mod.`) are taken off.

    Raises:
        UploadError: the file is of no kind that is read, or holds anything but weights within the limits.
    """
    return strip_prefixes(read_tensors(path, limits, choice))


def read_tensors(path: Path, limits: UploadLimits | None = None, choice: str = "auto") -> dict[str, Tensor]:
    """As `read_state_dict`, with all names as they are in the file."""
    limits = limits or UploadLimits()
    with open_weights(path, limits) as file:
        return numbers_of(largest(file.candidates, choice), limits)


def largest(found: list[Candidate], choice: str) -> Candidate:
    """The candidate with the most tensors that a choice allows; of equal ones averaged weights, then the first.

    Raises:
        UploadError: the choice allows none.
    """
    allowed = [each for each in found if not each.joined and allows(choice, each.path, each.path, _averaged(each))]
    if not allowed:
        listed = ", ".join(f"`{each.path[:100] or '(the whole file)'}`" for each in found[:LISTED_AT_MOST])
        raise UploadError(f"the file holds no weights under {choice[:100]!r}, but {listed}", "Choose one of those.")
    return max(
        reversed(allowed),
        key=lambda each: (not _is_of_training(each.path), len(each.tensors), _averaged(each), -_at(found, each)),
    )


def _at(found: list[Candidate], candidate: Candidate) -> int:
    return next(index for index, each in enumerate(found) if each is candidate)


def _averaged(candidate: Candidate) -> bool:
    return candidate.updates not in (None, 0) or is_averaged(candidate.path)


def _is_of_training(path: str) -> bool:
    """Whether a path leads to the state of an optimiser or a schedule."""
    return any(part.startswith(("optim", "sched", "scaler")) for part in path.lower().split("."))


def numbers_of(candidate: Candidate, limits: UploadLimits) -> dict[str, Tensor]:
    """All tensors of a candidate, each once: names of one tensor share its memory.

    Raises:
        UploadError: they are more than is read, overlap too much, or one of them cannot be read.
    """
    distinct = {leaf.identity: leaf for leaf in candidate.tensors.values()}
    _check_overlap(distinct)
    if sum(numel(leaf) for leaf in distinct.values()) > limits.parameters:
        raise UploadError(f"the weights have more than {limits.parameters} numbers", "Upload a smaller network.")
    read: dict[Any, Tensor] = {}
    for name, leaf in candidate.tensors.items():
        if leaf.identity not in read:
            read[leaf.identity] = checked(name, leaf)
    return {name: read[leaf.identity] for name, leaf in candidate.tensors.items()}


def _check_overlap(distinct: Mapping[Any, Leaf]) -> None:
    """Refuse views of one storage that would take many times its bytes as copies."""
    together: dict[str, int] = {}
    for leaf in distinct.values():
        if type(leaf) is Strided:
            together[leaf.key] = together.get(leaf.key, 0) + numel(leaf) * leaf.dtype.itemsize
            if together[leaf.key] > OVERLAP * leaf.span().size + SMALL:
                raise UploadError(
                    f"a tensor of shape {tuple(leaf.shape)} claims more elements than the checkpoint stores, or many overlap",
                    SAVE_STATE_DICT,
                )
