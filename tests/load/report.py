"""Reports as a table: `python -m tests.load.report REPORT.json… --into docs/reliability.md`."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.chaos.report import print_or_write

BEGIN, END = "<!-- load: python -m tests.load.report -->", "<!-- end of load -->"


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table with one column per report and one row per figure."""
    rows = [["", *(f"seed {report['seed']}" for report in reports)], ["---"] * (len(reports) + 1)]
    rows.append(["rules", *(report["rules"] for report in reports)])
    rows.append(["total seconds", *(str(report["seconds"]) for report in reports)])
    rows.append(["minutes of mixed traffic", *(str(report["minutes"]) for report in reports)])
    flat = [dict(_flat(report["figures"])) for report in reports]
    names = list(dict.fromkeys(name for one in flat for name in one))
    rows += [[name.replace("_", " "), *(one.get(name, "not run") for one in flat)] for name in names]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _flat(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every figure under its part's name; the innermost level is one cell."""
    found = []
    for part, values in figures.items():
        for name, value in values.items():
            if isinstance(value, dict) and any(isinstance(each, dict) for each in value.values()):
                found += [(f"{part}, {name}, {inner}", _cell(each)) for inner, each in value.items()]
            else:
                found.append((f"{part}, {name}", _cell(value)))
    return found


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    return str(value)


if __name__ == "__main__":
    print_or_write("tests.load.report", __doc__, BEGIN, END, table)
