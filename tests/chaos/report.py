"""Reports as a table: `python -m tests.chaos.report REPORT.json… --into docs/chaos.md`."""

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- chaos: python -m tests.chaos.report -->", "<!-- end of chaos -->"
LINES = (
    ("guarantees", "guarantees"),
    ("seed", "seed"),
    ("seconds", "total seconds"),
    ("jobs", "jobs"),
    ("posts", "POSTs sent for them"),
    ("faults", "faults"),
    ("wrong_clock", "a worker whose clock is off"),
    ("jobs_failed_by_damaged_inputs", "jobs that failed because a fault had damaged their input for good"),
    ("damaged_downloads_refused", "downloads of damaged artifacts that were refused"),
    ("attempts", "attempts by outcome"),
    ("leases_taken_back", "expired leases taken back"),
    ("resumes", "runs resumed from a checkpoint"),
    ("longest_drain_seconds", "maximum seconds from SIGTERM to a worker's end"),
    ("most_attempts_of_a_job", "maximum attempts of one job"),
    ("longest_seconds_to_final", "maximum seconds from POST to a final state"),
    ("poison", "failed as poison"),
    ("cancels_that_came_too_late", "cancels after the engine had finished"),
    ("students_compared", "students bit-equal to an undisturbed run"),
)


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table with one column per report."""
    head = ["", *(report["set"] for report in reports)]
    rows = [[title, *(_cell(report[name]) for report in reports)] for name, title in LINES]
    rows.append(["total faults", *(str(sum(report["faults"].values())) for report in reports)])
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in value.items()) or "none"
    return str(value)


def replace_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace the text between two marks of a page."""
    old = page.read_text()
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(old):
        raise SystemExit(f"{page} has no marks for the table; add the lines\n{begin}\n{end}")
    page.write_text(pattern.sub(lambda _: f"{begin}\n{text}\n{end}", old))


def print_or_write(
    program: str, description: str | None, begin: str, end: str, table: Callable[[Sequence[Mapping[str, Any]]], str]
) -> None:
    """A command that makes a table of report files, and prints it or writes it between two marks of a page."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("reports", type=Path, nargs="+")
    parser.add_argument("--into", type=Path)
    arguments = parser.parse_args()
    text = table([json.loads(path.read_text()) for path in arguments.reports])
    if arguments.into:
        replace_between(arguments.into, begin, end, text)
    else:
        print(text)


if __name__ == "__main__":
    print_or_write("tests.chaos.report", __doc__, BEGIN, END, table)
