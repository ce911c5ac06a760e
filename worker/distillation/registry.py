"""Methods are found by file name: `find("objectives", "kd")` is the one Objective defined in a file `kd.py` under
`objectives/`."""

import importlib
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
    return tuple(name for name in sorted(places(kind)) if _classes(places(kind)[name]))


def places(kind: str) -> dict[str, str]:
    """Every file of a kind's package, subfolders included: the module's full name by the file's name."""
    package = importlib.import_module(f"worker.distillation.{kind}")
    found: dict[str, str] = {}
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.ispkg:
            found[module.name.rpartition(".")[2]] = module.name
    return found


def find(kind: str, name: str, pointer: str = "") -> Any:
    """The class of a method.

    Raises:
        SpecError: there is no such method; the message lists the known ones.
    """
    module = places(kind).get(name)
    found = _classes(module) if module else []
    if not found:
        raise SpecError(
            [Problem(f"{pointer}/name", f"there is no {kind[:-1]} {name!r}; known are {', '.join(names(kind))}")]
        )
    return found[0]


def make(kind: str, spec: Mapping[str, Any], pointer: str, *, leave_out: Collection[str] = ()) -> Any:
    """The method that a part of a job's spec names, with its parameters; keys in `leave_out` are not parameters.

    Raises:
        SpecError: there is no such method, or it does not take these parameters.
    """
    found = find(kind, spec["name"], pointer)
    values = {key: value for key, value in spec.items() if key != "name" and key not in leave_out}
    return found(parse(found.Parameters, values, pointer))


def _classes(module_name: str) -> list[type]:
    module = importlib.import_module(module_name)
    base = BASES[module_name.removeprefix("worker.distillation.").partition(".")[0]]
    members = [value for _, value in inspect.getmembers(module, inspect.isclass)]
    return [value for value in members if issubclass(value, base) and value.__module__ == module.__name__]
