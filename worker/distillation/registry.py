"""Methods are found by file name: `find("objectives", "kd")` is the one Objective defined in `objectives/kd.py`."""

import importlib
import importlib.machinery
import inspect
import pkgutil
from collections.abc import Collection, Mapping
from typing import Any

from worker.distillation import objective, procedure, source, task, transform
from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import parse

BASES: dict[str, type] = {
    "objectives": objective.Objective,
    "procedures": procedure.Procedure,
    "sources": source.Source,
    "transforms": transform.Transform,
    "tasks": task.Task,
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


def make(kind: str, spec: Mapping[str, Any], pointer: str, *, leave_out: Collection[str] = ()) -> Any:
    """The method that a part of a job's spec names, with the parameters that it gives; keys in `leave_out` are no parameters.

    Raises:
        SpecError: there is no such method, or it does not take these parameters.
    """
    found = find(kind, spec["name"], pointer)
    values = {key: value for key, value in spec.items() if key != "name" and key not in leave_out}
    return found(parse(found.Parameters, values, pointer))


def _classes(kind: str, name: str) -> list[type]:
    module = importlib.import_module(f"worker.distillation.{kind}.{name}")
    members = [value for _, value in inspect.getmembers(module, inspect.isclass)]
    return [value for value in members if issubclass(value, BASES[kind]) and value.__module__ == module.__name__]
