"""Reading untrusted weight files: the format is detected from the content, and no code in them is ever run.

`weights_file/` reads containers, `candidates.py` finds candidates for a network's weights, and `key_matching.py` selects
the one that fits. See docs/decisions/reading-weights.md.
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
"""Largest ratio of the bytes of all tensors of a storage to the bytes of the storage."""
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
"""Calls in pickles of plain data, which are not reported."""


@dataclass(frozen=True)
class OpenFile:
    """A file of weights and its candidates for a network's weights."""

    container: str
    candidates: list[Candidate]
    not_run: tuple[str, ...] = ()
    """Classes and functions that the file calls and this reader does not know. None of them was looked up."""


@contextmanager
def open_weights(path: Path, limits: UploadLimits) -> Iterator[OpenFile]:
    """Open a file of weights; its tensors can be read until the end of the block.

    Raises:
        UploadError: the format is not supported, or the file contains no named tensors.
    """
    with opened(path, limits) as contents:
        found = candidates(contents.root, limits)
        if not found:
            foreign.refuse_classes(contents.classes)
            raise UploadError(f"the file contains no state dict{_what_else(contents)}", SAVE_STATE_DICT)
        if any(len(each.tensors) > limits.tensors for each in found):
            raise UploadError(f"the file has too many tensors; the maximum is {limits.tensors}", SAVE_STATE_DICT)
        if any("._packed_params" in name for each in found for name in each.tensors):
            raise UploadError(
                "the file contains the state dict of a quantised network, which is not supported", QUANTISED
            )
        yield OpenFile(contents.container, found, tuple(sorted(contents.classes - ORDINARY)))


def _what_else(contents: Contents) -> str:
    """The keys of a file without tensors, and the objects that it would create."""
    root = contents.root if type(contents.root) is dict else {}
    keys = [repr(key[:40]) for key in root if type(key) is str][:LISTED_AT_MOST]
    objects = [f"`{name[:80]}`" for name in sorted(contents.classes - ORDINARY)][:LISTED_AT_MOST]
    listed = [*keys, *([f"objects ({', '.join(objects)}), none of which was created"] if objects else [])]
    return f", but {', '.join(listed)}" if listed else ""


def read_state_dict(path: Path, limits: UploadLimits | None = None, choice: str = "auto") -> dict[str, Tensor]:
    """Read the state dict of a file: finite tensors on the CPU by name, with half precision converted to float32.

    Of several state dicts, the one with the most tensors that `choice` allows (`auto`, `raw`, `averaged` or a path) is
    read. Names of one tensor share memory. Prefixes that wrappers add to all names (`module.`, `model.`, `_orig_mod.`) are
    removed.

    Raises:
        UploadError: the format is not supported, or the file contains anything but weights within the limits.
    """
    return strip_prefixes(read_tensors(path, limits, choice))


def read_tensors(path: Path, limits: UploadLimits | None = None, choice: str = "auto") -> dict[str, Tensor]:
    """Like `read_state_dict`, but names keep their prefixes."""
    limits = limits or UploadLimits()
    with open_weights(path, limits) as file:
        return numbers_of(largest(file.candidates, choice), limits)


def largest(found: list[Candidate], choice: str) -> Candidate:
    """The candidate with the most tensors that a choice allows; of equal ones, averaged weights, then the first.

    Raises:
        UploadError: the choice allows no candidate.
    """
    allowed = [each for each in found if not each.joined and allows(choice, each.path, each.path, _averaged(each))]
    if not allowed:
        listed = ", ".join(f"`{each.path[:100] or '(the whole file)'}`" for each in found[:LISTED_AT_MOST])
        raise UploadError(
            f"the file has no weights under {choice[:100]!r}, but {listed}", "Set `weights` to one of those."
        )
    return max(
        reversed(allowed),
        key=lambda each: (not _is_of_training(each.path), len(each.tensors), _averaged(each), -_at(found, each)),
    )


def _at(found: list[Candidate], candidate: Candidate) -> int:
    return next(index for index, each in enumerate(found) if each is candidate)


def _averaged(candidate: Candidate) -> bool:
    return candidate.updates not in (None, 0) or is_averaged(candidate.path)


def _is_of_training(path: str) -> bool:
    """Whether a path is the state of an optimiser, a scheduler or a gradient scaler."""
    return any(part.startswith(("optim", "sched", "scaler")) for part in path.lower().split("."))


def numbers_of(candidate: Candidate, limits: UploadLimits) -> dict[str, Tensor]:
    """Read all tensors of a candidate; names of one tensor share memory.

    Raises:
        UploadError: there are too many elements, tensors overlap too much, or one cannot be read.
    """
    distinct = {leaf.identity: leaf for leaf in candidate.tensors.values()}
    _check_overlap(distinct)
    if sum(numel(leaf) for leaf in distinct.values()) > limits.parameters:
        raise UploadError(f"the weights have more than {limits.parameters} elements", "Upload a smaller network.")
    limits.check_canonical(sum(numel(leaf) * leaf.dtype.itemsize for leaf in distinct.values()))
    read: dict[Any, Tensor] = {}
    for name, leaf in candidate.tensors.items():
        if leaf.identity not in read:
            read[leaf.identity] = checked(name, leaf)
    return {name: read[leaf.identity] for name, leaf in candidate.tensors.items()}


def _check_overlap(distinct: Mapping[Any, Leaf]) -> None:
    """Refuse views of one storage whose copies would need many times its bytes."""
    together: dict[str, int] = {}
    for leaf in distinct.values():
        if type(leaf) is Strided:
            together[leaf.key] = together.get(leaf.key, 0) + numel(leaf) * leaf.dtype.itemsize
            if together[leaf.key] > OVERLAP * leaf.span().size + SMALL:
                raise UploadError(
                    f"a tensor of shape {tuple(leaf.shape)} claims more elements than the checkpoint stores, or tensors overlap",
                    SAVE_STATE_DICT,
                )
