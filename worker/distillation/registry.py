"""Methods are found by file name: `find("objectives", "kd")` is the one Objective defined in `objectives/kd.py`."""

import importlib
import importlib.machinery
import inspect
import pkgutil
from typing import Any

from worker.distillation import objective, procedure, source, transform
from worker.distillation.errors import Problem, SpecError

BASES: dict[str, type] = {
    "objectives": objective.Objective,
    "procedures": procedure.Procedure,
    "sources": source.Source,
    "transforms": transform.Transform,
}


def names(kind: str) -> tuple[str, ...]:
    """The methods of a kind: the files of its package that hold one."""
    package = importlib.import_module(f"worker.distillation.{kind}")
    files = sorted({module.name for module in pkgutil.iter_modules(package.__path__)})
    return tuple(name for name in files if _classes(kind, name))


def find(kind: str, name: str, pointer: str = "") -> Any:
    """The class of a method.

    Raises:
        SpecError: there is no such method; the message names those that there are.
    """
    package = importlib.import_module(f"worker.distillation.{kind}")
    known = name.isidentifier() and importlib.machinery.PathFinder.find_spec(
        f"{package.__name__}.{name}", package.__path__
    )
    found = _classes(kind, name) if known else []
    if not found:
        raise SpecError(
            [Problem(f"{pointer}/name", f"no {kind[:-1]} is called {name!r}; there are {', '.join(names(kind))}")]
        )
    return found[0]


def _classes(kind: str, name: str) -> list[type]:
    module = importlib.import_module(f"worker.distillation.{kind}.{name}")
    members = [value for _, value in inspect.getmembers(module, inspect.isclass)]
    return [value for value in members if issubclass(value, BASES[kind]) and value.__module__ == module.__name__]
