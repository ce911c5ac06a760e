"""The uploaded files that a spec names: parameters of methods (statistics, embeddings, …), and a student's program."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.spec.catalogue import known, nested_files
from models.spec.problems import pointer_of
from models.spec.programs import program_of

SINGLE = {"source": "sources", "procedure": "procedures"}
SEVERAL = {"objectives": "objectives", "transforms": "transforms"}


@dataclass(frozen=True)
class NamedFile:
    """A file that a parameter names; `kind` is the required kind."""

    pointer: str
    id: str
    kind: str


def named_files(spec: Mapping[str, Any]) -> list[NamedFile]:
    """The files that a spec names. The spec may be resolved or not; methods written as bare names have no files."""
    program = program_of(spec)
    built_of = [NamedFile("/student/program", program, "program")] if program else []
    return built_of + [
        NamedFile(pointer_of([*place, parameter, *index]), identifier, of_kind)
        for place, kind, method in _methods(spec)
        if isinstance(method, Mapping) and method["name"] in known(kind)
        for parameter, of_kind in nested_files(kind, method["name"]).items()
        for index, identifier in _each(method.get(parameter))
    ]


def _each(given: str | Sequence[str] | None) -> Iterator[tuple[list[int], str]]:
    """One file, or each file of a list with its index."""
    if isinstance(given, str):
        yield [], given
    else:
        yield from (([index], identifier) for index, identifier in enumerate(given or ()))


def _methods(spec: Mapping[str, Any]) -> Iterator[tuple[list[str | int], str, Any]]:
    for part, kind in SINGLE.items():
        yield [part], kind, spec.get(part)
    for part, kind in SEVERAL.items():
        for index, method in enumerate(spec.get(part) or ()):
            yield [part, index], kind, method
