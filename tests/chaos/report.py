"""Reports as a table: `python -m tests.chaos.report REPORT.json… --into docs/chaos.md`."""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- chaos: python -m tests.chaos.report -->", "<!-- end of chaos -->"
LINES = (
    ("verdict", "promises"),
    ("seed", "seed"),
    ("seconds", "seconds in all"),
    ("jobs", "jobs"),
    ("posts", "POSTs that asked for them"),
    ("faults", "faults"),
    ("attempts", "attempts by outcome"),
    ("leases_taken_back", "leases taken back"),
    ("resumes", "runs resumed from a checkpoint"),
    ("longest_drain_seconds", "longest seconds from SIGTERM to a worker's end"),
    ("most_attempts_of_a_job", "most attempts of one job"),
    ("longest_seconds_to_final", "longest seconds from POST to final"),
    ("poison", "failed as poison"),
    ("cancels_that_came_too_late", "cancels that met a finished engine"),
    ("students_compared", "students bit-equal to an undisturbed run"),
)


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """A table in Markdown, one column a report."""
    head = ["", *(report["set"] for report in reports)]
    rows = [[title, *(_cell(report[name]) for report in reports)] for name, title in LINES]
    rows.append(["faults in all", *(str(sum(report["faults"].values())) for report in reports)])
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in value.items()) or "none"
    return str(value)


def write_into(page: Path, reports: Sequence[Mapping[str, Any]]) -> None:
    """Replace what stands between the two marks of a page."""
    text = page.read_text()
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{page} has no place for a table: it needs the lines\n{BEGIN}\n{END}")
    page.write_text(pattern.sub(lambda _: f"{BEGIN}\n{table(reports)}\n{END}", text))


def main() -> None:
    """Print the table, or write it into a page."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.report", description=__doc__)
    parser.add_argument("reports", type=Path, nargs="+")
    parser.add_argument("--into", type=Path)
    arguments = parser.parse_args()
    reports = [json.loads(path.read_text()) for path in arguments.reports]
    if arguments.into:
        write_into(arguments.into, reports)
    else:
        print(table(reports))


if __name__ == "__main__":
    main()
