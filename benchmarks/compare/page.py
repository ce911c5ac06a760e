"""Writes the tables of `docs/comparison.md`, between its two marks; the rest of the page is written by hand."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare.plot import plot
from benchmarks.compare.protocols import CIFAR10, MNIST, RESIDUAL, Protocol
from benchmarks.compare.results import Difference, Measured, paired, read
from benchmarks.compare.rows import LISTS, NOT_COMPARED, objectives
from worker.distillation import registry

BEGIN, END = "<!-- begin: written by python -m benchmarks.compare -->", "<!-- end -->"
PUBLISHED = {
    "KD": 73.33, "FitNet": 73.50, "AT": 73.44, "NST": 73.30, "FSP": 72.62, "AB": 73.17, "RKD": 71.90, "CRD": 75.51,
    "DKD": 76.32, "DIST": 76.31, "KD, standardised": 76.62, "MLLD": 77.08, "SimKD": 78.08,
}  # fmt: skip
"""CIFAR-100, resnet32x4 (79.42) to resnet8x4 (72.50): top-1 in %."""
OF_PUBLISHED = {
    "KD": "kd", "FitNet": "hint", "AT": "at_sum_power", "NST": "nst_polynomial", "FSP": "fsp", "AB": "ab_then_plain",
    "RKD": "rkd", "CRD": "crd", "DKD": "dkd", "DIST": "dist", "KD, standardised": "kd_standardised",
    "MLLD": "multi_level", "SimKD": "simkd",
}  # fmt: skip
SOURCES = (
    "KD to CRD from the README of RepDistiller (Tian et al., arXiv:1910.10699), DKD from mdistiller's (Zhao et al., "
    "arXiv:2203.08679), DIST from its authors' (Huang et al., arXiv:2205.10536), standardised KD from its authors' (Sun et "
    "al., arXiv:2403.01427), MLLD from its authors' (Jin et al., CVPR 2023), SimKD from its authors' (Chen et al., "
    "arXiv:2203.14001)."
)


def write(page: Path, results: Path) -> None:
    """Renew the text between the marks, and the plot next to the page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    facts, rows = read(results / MNIST.name, LISTS[MNIST.name]())
    residual = _losses_alone(RESIDUAL, "With BatchNorm and equal channels", results, "Not run.")
    cifar10 = _losses_alone(CIFAR10, CIFAR10.title, results, _without_gpu())
    parts = [*_mnist(facts, rows), *residual, *cifar10, *_published(rows)]
    page.write_text(f"{before}{BEGIN}\n\n" + "\n".join(parts) + f"\n{END}{after}")
    page.with_suffix(".svg").write_text(plot([each for each in rows.values() if each.runs], rows.get("plain")))


def _mnist(facts: Mapping[str, Any], rows: Mapping[str, Measured]) -> Iterator[str]:
    one_stage = {row.name for row in objectives()}
    yield from ("## Losses", "", *_setting(MNIST, facts), "")
    yield from _losses([each for name, each in rows.items() if name in one_stage], rows, len(MNIST.seeds))
    yield from ("", "## Schedules and cohorts", "")
    yield from _schedules([each for name, each in rows.items() if name not in one_stage], rows, len(MNIST.seeds))
    yield from ("", "## Not run", "", "| row | reason |", "|---|---|")
    for each in rows.values():
        if not each.runs:
            yield f"| {each.row.title} | {_escaped(each.refused or 'not yet run')} |"
    yield from (f"| `{name}` | {why} |" for name, why in without_row().items())


def without_row() -> dict[str, str]:
    """The engine's objectives and procedures without a row, and the reason."""
    rows = [row for name in LISTS for row in LISTS[name]()]
    used = {each["name"] for row in rows for each in row.objectives} | {row.procedure["name"] for row in rows}
    found = {}
    for kind in ("objectives", "procedures"):
        for name in sorted({*registry.names(kind)} - used):
            tasks = registry.find(kind, name).needs.tasks if kind == "objectives" else ("classification",)
            other = "" if "classification" in tasks else f"for {', '.join(tasks)}"
            found[name] = other or NOT_COMPARED.get(name, "no row yet")
    return found


def _losses_alone(protocol: Protocol, title: str, results: Path, absent: str) -> Iterator[str]:
    """The section of a protocol that has losses only; `absent` is its text if no row was run."""
    facts, rows = read(results / protocol.name, LISTS[protocol.name]())
    yield from ("", f"## {title}", "")
    if not any(each.runs for each in rows.values()):
        yield absent
        return
    yield from (*_setting(protocol, facts), "", *_losses(list(rows.values()), rows, len(protocol.seeds)))


def _without_gpu() -> str:
    names = ", ".join(row.title for row in LISTS[CIFAR10.name]())
    return f"Not run: it needs a GPU. Its rows are {names}."


def _published(rows: Mapping[str, Measured]) -> Iterator[str]:
    yield from ("", "## Published results, for orientation", "")
    yield "CIFAR-100, resnet32x4 (79.42 %) to resnet8x4 (72.50 % by plain training), top-1 in %, and the gain in percentage points as published and here."
    yield f"Networks and images differ, and the published training is 240 epochs of SGD. {SOURCES}"
    yield from ("", "| method | published | published gain | our gain |", "|---|---|---|---|")
    plain = rows.get("plain")
    for name, value in PUBLISHED.items():
        row = rows.get(OF_PUBLISHED[name])
        here = paired(row.accuracies, plain.accuracies) if row and plain else None
        yield f"| {name} | {value:.2f} | {value - 72.50:+.2f} | {_points(here) or 'not run'} |"


def _setting(protocol: Protocol, facts: Mapping[str, Any]) -> list[str]:
    if not facts:
        return ["Not run."]
    given = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in protocol.training.items())
    count = (
        f"{protocol.images:,} training images, drawn again for each seed" if protocol.images else "all training images"
    )
    teachers = ", ".join(f"{100 * accuracy:.2f} %" for accuracy in facts["teachers"])
    return [
        f"{protocol.title}: {count}; {given}; {len(protocol.seeds)} seeds; the last student, on all test images.",
        f"The given teacher was trained on all training images: {teachers}. torch {facts['torch']}, {protocol.device}, one thread.",
    ]


def _losses(measured: Sequence[Measured], rows: Mapping[str, Measured], seeds: int) -> Iterator[str]:
    yield "| method | weight | accuracy | spread | vs. plain | vs. KD | vs. | | ms per step | MB |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for group, each in _grouped(measured):
        if group:
            yield f"| **{group}** | | | | | | | | | |"
        cost = f"{each.step_milliseconds:.1f} | {each.typical('memory_mb'):.0f}"
        yield f"| {each.row.title} | {each.row.why} | {_cells(each, rows, seeds)} | {cost} |"


def _schedules(measured: Sequence[Measured], rows: Mapping[str, Measured], seeds: int) -> Iterator[str]:
    yield "| schedule | accuracy | spread | vs. plain | vs. KD | vs. | | steps | CPU s |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for group, each in _grouped(measured):
        if group:
            yield f"| **{group}** | | | | | | | | |"
        cost = f"{each.typical('steps'):,.0f} | {each.typical('processor_seconds'):.0f}"
        yield f"| {each.row.title} | {_cells(each, rows, seeds)} | {cost} |"


def _grouped(measured: Sequence[Measured]) -> Iterator[tuple[str, Measured]]:
    """The rows that were run, each with the name of its group if it is the first of the group."""
    before = ""
    for each in (each for each in measured if each.runs):
        yield each.row.group if each.row.group != before else "", each
        before = each.row.group


def _cells(each: Measured, rows: Mapping[str, Measured], seeds: int) -> str:
    """Accuracy, spread, and the differences from plain training, from KD and from the row named by `over`."""
    over = "" if each.row.over == "kd" else each.row.over
    third = f"{rows[over].row.title} | {_differences(each, rows, over)}" if over in rows else " | "
    return f"{_accuracy(each, seeds)} | {_differences(each, rows, 'plain', 'kd')} | {third}"


def _accuracy(each: Measured, full: int) -> str:
    few = f" ({len(each.runs)} seed{'s' * (len(each.runs) > 1)})" if len(each.runs) < full else ""
    spread = "" if each.spread is None else f"{100 * each.spread:.2f}"
    return f"{100 * each.mean:.2f} %{few} | {spread}"


def _differences(each: Measured, rows: Mapping[str, Measured], *names: str) -> str:
    cells = []
    for name in names:
        other = rows.get(name)
        same = other is None or each.row.name == name
        cells.append("" if same else _points(paired(each.accuracies, other.accuracies)))
    return " | ".join(cells)


def _points(difference: Difference | None) -> str:
    """A difference in percentage points, bold if its interval excludes zero."""
    if difference is None:
        return ""
    half = "" if difference.half is None else f" ± {100 * difference.half:.2f}"
    words = f"{100 * difference.mean:+.2f}{half}"
    return f"**{words}**" if difference.sign else words


def _escaped(words: str) -> str:
    return words.replace("|", "\\|")
