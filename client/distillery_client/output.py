"""Output of the command line: tables and text, or JSON."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from distillery_client.errors import DistilleryError, JobEnded, Refused, Rejected

Record = dict[str, Any]

screen = Console(soft_wrap=True)
errors = Console(stderr=True, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print JSON to standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_table(records: Iterable[Record], columns: Sequence[str]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), no_wrap=column == "id" or column.endswith("_at"))
    for record in records:
        table.add_row(*(_cell(column, record.get(column)) for column in columns))
    screen.print(table)


def print_record(record: Record) -> None:
    """Print a record, one field per line; nested values as JSON."""
    width = max(len(name) for name in record)
    for name, value in record.items():
        if value is not None:
            screen.print(f"[bold]{name:{width}}[/]  ", end="")
            screen.print(_cell(name, value), markup=False, highlight=False)


def print_findings(record: Record) -> None:
    """Print what an inspection measured, and its warnings, one per line."""
    findings = record.get("findings") or {}
    if found := findings.get("recognised"):
        words = f"right on {found['accuracy']:.1%} of {found['images']} images of the split {found['split']}"
        screen.print(f"Recognised as `{findings.get('network')}`, {words}.", markup=False, highlight=False)
    for warning in findings.get("warnings") or ():
        screen.print(f"Warning: {warning}", markup=False, highlight=False)


def print_result(report: Record) -> None:
    """Print the summary of a job's report: the main metric, or the estimate without data, the sizes of student and teacher, and the
    notes."""
    summary = report.get("summary") or {}
    if metric := summary.get("main_metric"):
        rows = [
            f"{name} {value:.4g}"
            for name, value in (("student", metric.get("student")), ("teacher", metric.get("teacher")))
            if value is not None
        ]
        if rows:
            screen.print(f"{metric['name'].replace('_', ' ')}: {', '.join(rows)}", markup=False, highlight=False)
    elif (estimate := summary.get("estimated_agreement")) is not None:
        screen.print(f"estimated agreement with the teacher: {estimate:.4g}", markup=False, highlight=False)
    sizes = [f"{name} {count:,}" for name in ("parameters", "teacher_parameters") if (count := summary.get(name))]
    if sizes:
        screen.print(", ".join(sizes).replace("_", " "), markup=False, highlight=False)
    for note in report.get("notes") or ():
        screen.print(f"Note: {note}", markup=False, highlight=False)


def print_error(error: DistilleryError) -> None:
    """Print the message, one line per problem, and the hint."""
    errors.print(f"[red]Error:[/] {_safe(str(error))}")
    if isinstance(error, Refused | Rejected | JobEnded):
        for problem in error.errors:
            errors.print(f"  {_safe(problem.get('pointer') or '/')}: {_safe(problem.get('message', ''))}")
        if hint := error.problem.get("hint"):
            errors.print(f"Hint: {_safe(str(hint))}")
    if isinstance(error, Refused) and error.status >= 500 and error.request_id:
        errors.print(f"The service's log has details under the request id {error.request_id}.")


def human_bytes(count: float | None) -> str:
    """1536 becomes `1.5 KiB`."""
    if count is None:
        return ""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name.endswith("_at"):
        return datetime.fromisoformat(value).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if name == "size":
        return human_bytes(value)
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _safe(text: str) -> str:
    return text.replace("[", r"\[")
