"""Methods are found by file name: `find("objectives", "kd")` is the one Objective defined in `objectives/kd.py`."""

import importlib
import inspect
from functools import cache
from pathlib import Path
from typing import Any

from worker.distillation import objective, procedure, source, transform
from worker.distillation.errors import Problem, SpecError

BASES: dict[str, type] = {
    "objectives": objective.Objective,
    "procedures": procedure.Procedure,
    "sources": source.Source,
    "transforms": transform.Transform,
}


@cache
def names(kind: str) -> tuple[str, ...]:
    """The methods of a kind: its files that hold one."""
    folder = Path(__file__).parent / kind
    files = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    return tuple(name for name in files if _classes(kind, name))


def find(kind: str, name: str, pointer: str = "") -> Any:
    """The class of a method.

    Raises:
        SpecError: there is no such method; the message names those that there are.
    """
    known = (Path(__file__).parent / kind / f"{name}.py").is_file() if name.isidentifier() else False
    found = _classes(kind, name) if known else []
    if not found:
        raise SpecError([Problem(f"{pointer}/name", f"no {kind[:-1]} is called {name!r}; there are {', '.join(names(kind))}")])
    return found[0]


def _classes(kind: str, name: str) -> list[type]:
    module = importlib.import_module(f"worker.distillation.{kind}.{name}")
    members = [value for _, value in inspect.getmembers(module, inspect.isclass)]
    return [value for value in members if issubclass(value, BASES[kind]) and value.__module__ == module.__name__]
