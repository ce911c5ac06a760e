"""Classes from arrays of labels of any usual kind: integers, whole floats, names, one-hot rows.

Shapes: N samples, K classes.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from worker.distillation.data import truth
from worker.distillation.data.packed import Options
from worker.distillation.data.reading.written_labels import first_label, whole
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

Named = tuple[str, Any]
"""An array's name, and the array."""


def class_labels(
    arrays: Mapping[str, Named], names: tuple[str, ...], options: Options, limits: UploadLimits, notes: list[str]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Labels (N,) int64 counted from 0, by split, and the names of the classes, none if they are not named.

    Raises:
        UploadError: the labels are invalid.
    """
    plain = {split: (name, _as_text(_one_column(name, array, notes))) for split, (name, array) in arrays.items()}
    if any(array.dtype.kind == "U" for _, array in plain.values()):
        plain, names = _from_names(plain, names, notes)
    labels = {split: truth.from_array(name, _whole(name, array), "class") for split, (name, array) in plain.items()}
    values = {int(value) for label in labels.values() for value in label.unique()}
    if not values or min(values) < 0 or max(values) > limits.classes:
        return labels, names  # which `truth.check` refuses
    first = first_label(values, options, len(names) or None, notes)
    if first and not names:
        names = tuple(map(str, range(first, max(values) + 1)))
    return {split: label - first for split, label in labels.items()}, names


def _one_column(name: str, array: Any, notes: list[str]) -> Any:
    """(N,) from (N,), (N, 1), (1, N) or one-hot rows (N, K)."""
    if array.ndim == 2 and 1 in array.shape:
        return array.reshape(-1)
    one_hot = (
        array.ndim == 2
        and array.shape[1] > 1
        and array.dtype.kind in "buif"
        and bool(((array == 0) | (array == 1)).all())
        and bool((array.sum(1) == 1).all())
    )
    if one_hot:
        notes.append(f"{name}: one-hot rows of {array.shape[1]} columns were read as classes")
        return array.argmax(1)
    return array


def _as_text(array: Any) -> Any:
    """Bytes as text."""
    import numpy as np

    return np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array


def _from_names(
    arrays: Mapping[str, Named], names: tuple[str, ...], notes: list[str]
) -> tuple[dict[str, Named], tuple[str, ...]]:
    """The numbers of class names, sorted as text unless the file gives their order; texts of digits are the numbers."""
    import numpy as np

    found = sorted({str(each) for _, array in arrays.values() for each in np.unique(array)})
    numbers = [whole(each) for each in found]
    if any(number is None for number in numbers):
        unknown = [each for each in found if names and each not in names]
        if unknown:
            raise UploadError(f"the label {unknown[0][:80]!r} is none of the class names", "Name every class.")
        if not names:
            notes.append(f"the labels are names; the {len(found)} classes are sorted by name")
        names = names or tuple(found)
        numbers = [names.index(each) for each in found]
    number = np.array(numbers, dtype=np.int64)
    return {
        split: (name, number[np.searchsorted(np.array(found), array.astype(np.array(found).dtype))])
        for split, (name, array) in arrays.items()
    }, names


def _whole(name: str, array: Any) -> Any:
    """Booleans and whole floats as integers."""
    import numpy as np

    if array.ndim != 1:
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind == "f" and bool((np.isfinite(array) & (array == np.rint(array)) & (abs(array) < 2**31)).all()):
        return array.astype(np.int64)
    return array
