"""Writes docs/errors.md, the list of all error codes: `python -m docs.errors_page`."""

import ast
from collections.abc import Iterator
from pathlib import Path

from api.http.errors import ApiError
from worker.ledger.failures import FAILURES

PAGE = Path(__file__).with_name("errors.md")
ENGINE = Path(__file__).parents[1] / "worker" / "distillation"
FAULTS = {"user": "yours", "job": "the job's", "service": "the service's"}
INTRODUCTION = """# Errors

Written by `python -m docs.errors_page` from the sources; a test fails when it is stale.

Every error has a fault: **yours** (change what you sent), **the job's** (it did not work with its settings; the hint says what to try),
or **the service's** (the service tries again if that can help). Each error has a code for programs, a message
for people, and in most cases a hint.
"""


def page() -> str:
    """The text of the page."""
    answers = _table(("type", "status", "title", "when"), _answers(ApiError))
    worker = ((f"`{code}`", FAULTS[one.fault], one.meaning, one.hint) for code, one in sorted(FAILURES.items()))
    return "\n".join(
        [
            INTRODUCTION,
            "## Errors of a request\n\nThe `type` of a problem document is `urn:distillery:problem:` followed by one of these.\n",
            answers,
            "\n## Errors of a job or an upload, reported by the worker\n\nThe `code` of a job's or an attempt's `error`, or of an "
            "upload's `problem`.\n",
            _table(("code", "fault", "meaning", "what to do"), worker),
            "\n## Errors of a job or an upload, reported by the engine\n\nIn the same fields. The message names the place, the "
            "value or the layer.\n",
            _table(("code", "fault", "meaning"), _engine()),
            "",
        ]
    )


def _answers(kind: type[ApiError]) -> Iterator[tuple[str, ...]]:
    for child in sorted(kind.__subclasses__(), key=lambda one: (one.status, one.kind)):
        yield f"`{child.kind}`", str(child.status), child.title, (child.__doc__ or "").splitlines()[0]
        yield from _answers(child)


def _engine() -> list[tuple[str, ...]]:
    """Read from the source files, since importing the engine takes seconds."""
    classes = [
        node for path in ENGINE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]  # fmt: skip
    rows = set()
    for node in classes:
        values = _constants(node)
        if "code" in values and node.name != "EngineError":
            about = (ast.get_docstring(node) or "").splitlines()[0]
            rows.add((f"`{values['code']}`", FAULTS[values.get("fault", "job")], about))
    return sorted(rows)


def _constants(node: ast.ClassDef) -> dict[str, str]:
    """The strings that a class assigns to `fault` and `code`."""
    found: dict[str, str] = {}
    for line in node.body:
        if not isinstance(line, ast.Assign):
            continue
        pairs = [(line.targets[0], line.value)]
        if isinstance(line.targets[0], ast.Tuple) and isinstance(line.value, ast.Tuple):
            pairs = list(zip(line.targets[0].elts, line.value.elts, strict=True))
        for target, value in pairs:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and target.id in ("fault", "code"):
                found[target.id] = str(value.value)
    return found


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
