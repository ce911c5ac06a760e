"""What a student's budget asked for, what was planned and measured, and what its transforms did, as tables for pages and reports."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.http.texts import number, percent, shown
from models.spec.catalogue import limit

STEPS = limit("steps_of_a_budget")
"""A planned student has n of so many parts of its channels or parameters."""
LAYER_COLUMNS = {"bits": "Bits", "sparsity_by_layer": "Zeros", "ranks": "Ranks", "channels": "Channels"}
"""What the report has by layer, and the heads of the columns."""


@dataclass(frozen=True)
class Table:
    """A table: the first cell of each row is its head. `long` tables are folded."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    about: str = ""
    long: bool = False


def tables(resolved: Mapping[str, Any], report: Mapping[str, Any]) -> list[Table]:
    """The tables of a job with this resolved spec; `report` is empty before its end."""
    budget, found = _mapping(_mapping(resolved.get("student")).get("budget")), _mapping(report.get("transformed"))
    drawn = [*_budget(budget, report)] if budget else []
    drawn += [_files(found, report), *_transforms(found), _file_that_ships(found, report)] if found else []
    return [table for table in drawn if table.rows]


def _budget(budget: Mapping[str, Any], report: Mapping[str, Any]) -> Iterator[Table]:
    chosen, ended = _mapping(budget.get("chosen")), _mapping(report.get("budget"))
    time = f"milliseconds for a batch of {shown(budget.get('batch', 1), 20)}, CPU threads: {shown(budget.get('threads', 1), 20)}"
    rows = [
        (words, number(budget.get(name)), number(chosen.get(name)), number(ended.get(name)))
        for name, words in (("bytes", f"bytes of {_name_of(budget, ended)}"), ("milliseconds", time))
        if budget.get(name) is not None
    ]
    allowed = ", ".join(shown(each, 40) for each in _list(budget.get("allow")))
    about = f"Allowed: {allowed}. " + (f"Chosen: {_candidate(chosen)}." if chosen else "Nothing has been chosen yet.")
    if "kept" in ended:
        about += f" The finished student {'keeps' if ended['kept'] else 'does not keep'} its budget."
    yield Table("Budget", ("", "At most", "Planned", "Measured"), rows, about)
    tried = [
        (_candidate(each), number(each.get("bytes")), number(each.get("milliseconds")))
        for each in map(_mapping, _list(chosen.get("tried")))
    ]
    about = "With random weights, before the training."
    yield Table("Students that were tried for the budget", ("", "Bytes", "Milliseconds"), tried, about, long=True)


def _name_of(budget: Mapping[str, Any], ended: Mapping[str, Any]) -> str:
    return shown(ended.get("name") or f"the {budget.get('file')} file", 80)


def _candidate(facts: Mapping[str, Any]) -> str:
    """A student that was tried, in words."""
    of = "parameters" if facts.get("way") == "factorise" else "channels"
    reduced = f"{shown(facts.get('step'), 20)} of {STEPS} parts of the {of} ({shown(facts.get('way'), 40)})"
    parts = ([reduced] if facts.get("way") else []) + (["int8"] if facts.get("rounded") else [])
    return " and ".join(parts) or "the whole student"


def _files(found: Mapping[str, Any], report: Mapping[str, Any]) -> Table:
    ours, theirs = _mapping(found.get("times_smaller")), _mapping(found.get("times_smaller_than_teacher"))
    rows = [
        (shown(file.get("name"), 80), number(file.get("bytes")), _times(ours, file), _times(theirs, file))
        for file in _files_of(report)
    ]
    whole = number(found.get("float32_student_bytes"))
    about = f"Times smaller than the student without transforms, which has {whole} bytes in float32."
    return Table("Bytes of every file", ("", "Bytes", "Times smaller", "Than the teacher"), rows, about)


def _times(by_name: Mapping[str, Any], file: Mapping[str, Any]) -> str:
    return number(by_name.get(str(file.get("name"))), 3)


def _transforms(found: Mapping[str, Any]) -> Iterator[Table]:
    of = [_mapping(each) for each in _list(found.get("of"))]
    rows = [
        (shown(each.get("name"), 40), _range(_mapping(each.get("bits"))), _bits(each), percent(each.get("sparsity")))
        for each in of
    ]
    yield Table("Transforms", ("", "Bits of weights", "Bits of activations", "Zeros"), rows)
    columns = [(name, head) for name, head in LAYER_COLUMNS.items() if any(_mapping(each.get(name)) for each in of)]
    by_layer: dict[str, dict[str, str]] = {}
    for each in of:
        for name, _ in columns:
            for layer, value in _mapping(each.get(name)).items():
                by_layer.setdefault(layer, {})[name] = percent(value) if name == "sparsity_by_layer" else _value(value)
    layers = [(shown(layer, 100), *(cells.get(name, "–") for name, _ in columns)) for layer, cells in by_layer.items()]
    yield Table("Layer by layer", ("", *(head for _, head in columns)), layers, long=True)


def _bits(facts: Mapping[str, Any]) -> str:
    rounded = facts.get("rounded_activations")
    return number(facts.get("activation_bits")) + (f", {number(rounded)} rounded" if rounded else "")


def _range(bits: Mapping[str, Any]) -> str:
    """The bits of all layers: `8`, or `2 to 8`."""
    values = [value for value in bits.values() if isinstance(value, int | float)]
    if not values:
        return "–"
    return number(min(values)) if min(values) == max(values) else f"{number(min(values))} to {number(max(values))}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_value(each) for each in value[:4])
    return number(value) if isinstance(value, int | float) else shown(value, 40)


def _file_that_ships(found: Mapping[str, Any], report: Mapping[str, Any]) -> Table:
    """The ONNX file, run by onnxruntime: metrics beside those of the student in PyTorch, time and bytes beside those in float32."""
    onnx = _mapping(found.get("onnx"))
    metrics = _mapping(_mapping(report.get("evaluation")).get("student"))
    rows = [
        (shown(name.replace("_", " "), 60), number(value), number(metrics.get(name)), "–")
        for name, value in _mapping(onnx.get("evaluation")).items()
        if isinstance(value, int | float)
    ]
    if onnx:
        sizes = {str(each.get("name")): each.get("bytes") for each in _files_of(report)}
        times = number(onnx.get("milliseconds")), "–", number(onnx.get("float32_milliseconds"))
        rows += [("milliseconds an image, with one CPU thread", *times)]
        rows += [("bytes", number(sizes.get("student.onnx")), "–", number(onnx.get("float32_bytes")))]
    heads = "", "student.onnx", "In PyTorch", "ONNX in float32"
    return Table("The file that ships, in onnxruntime", heads, rows)


def _files_of(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [_mapping(each) for each in _list(_mapping(report.get("student")).get("files"))]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
