"""Reports as a table: `python -m tests.load.report REPORT.json… --into docs/reliability.md`."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.report import replace_between

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


def main() -> None:
    """Print the table, or write it into a page."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.report", description=__doc__)
    parser.add_argument("reports", type=Path, nargs="+")
    parser.add_argument("--into", type=Path)
    arguments = parser.parse_args()
    text = table([json.loads(path.read_text()) for path in arguments.reports])
    if arguments.into:
        replace_between(arguments.into, BEGIN, END, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
