"""Writes the tables of docs/inputs.md, from the tables of the tests: `python -m docs.inputs_page`.

A section is `<!-- inputs: MODULE -->` to `<!-- end of inputs -->` in the page; MODULE has a function `tables`, which gives rows of
cells by heading.
"""

import importlib
import re
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).with_name("inputs.md")
SECTION = re.compile(r"(<!-- inputs: ([\w.]+) -->\n).*?(<!-- end of inputs -->)", re.DOTALL)


def renewed(page: str) -> str:
    """`page` with new tables between its marks."""
    return SECTION.sub(lambda found: f"{found[1]}{_section(found[2])}{found[3]}", page)


def _section(module: str) -> str:
    tables: dict[str, Sequence[Sequence[str]]] = importlib.import_module(module).tables()
    return "".join(f"\n### {heading}\n\n{_table(rows)}\n\n" for heading, rows in tables.items())


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
