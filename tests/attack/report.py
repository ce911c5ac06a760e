"""Reports as a table: `python -m tests.attack.report REPORT.json… --into docs/reliability.md`."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.chaos.report import print_or_write

BEGIN, END = "<!-- attack: python -m tests.attack.report -->", "<!-- end of attack -->"
LINES: tuple[tuple[str, str, str], ...] = (
    ("uploads", "files", "hostile files"),
    ("uploads", "verdicts", "their verdicts"),
    ("uploads", "traces", "traces of executed payloads"),
    ("uploads", "median_seconds", "median seconds from `POST` to verdict"),
    ("uploads", "slowest", "slowest"),
    ("uploads", "engine_peak_mb", "largest resident memory of an inspection, MB (torch included)"),
    ("uploads", "engine_median_mb", "median of it, MB"),
    ("uploads", "good_uploads", "good uploads between them, all accepted"),
    ("clients", "kinds", "kinds of bad clients"),
    ("clients", "connections", "their connections"),
    ("clients", "good_request_slowest_seconds", "slowest good request beside them, s"),
    ("requests", "operations", "operations in the OpenAPI document"),
    ("requests", "with_key", "generated requests with a key"),
    ("requests", "without_key", "generated requests without a key"),
    ("tenants", "calls", "calls of two tenants by role"),
    ("tenants", "routes_not_called", "routes that a role did not call"),
    ("service", "api_peak_mb", "largest resident memory of the API, MB"),
    ("service", "most_processes", "largest number of processes of the workers"),
)

MOST_NAMED = 8


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table with one column per report."""
    rows = [["", *(f"seed {report['seed']}" for report in reports)], ["---"] * (len(reports) + 1)]
    rows.append(["rules", *(report["rules"] for report in reports)])
    rows.append(["total seconds", *(str(report["seconds"]) for report in reports)])
    for part, name, title in LINES:
        rows.append([title, *(_cell(report["figures"].get(part, {}).get(name)) for report in reports)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cell(value: Any) -> str:
    if value is None:
        return "not run"
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items()) or "none"
    if isinstance(value, list):
        named = ", ".join(map(str, value[:MOST_NAMED])) or "none"
        return named if len(value) <= MOST_NAMED else f"{len(value)}, such as {named}"
    return str(value)


if __name__ == "__main__":
    print_or_write("tests.attack.report", __doc__, BEGIN, END, table)
