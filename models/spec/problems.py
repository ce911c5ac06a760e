"""Problems of a request: each has a JSON pointer (RFC 6901) and a message."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

OURS, UNKNOWN = "distillery", "unknown_field"
"""Types of errors: of our own validators, and of unknown fields that were compared with the known ones."""
TEMPLATES: dict[str, LiteralString] = {OURS: "{text}", UNKNOWN: "is not a known field{near}"}
MOST_NAMED = 64
"""Entries of an error up to which unknown fields are compared with the known ones, which takes a tenth of a millisecond for each."""


@dataclass(frozen=True)
class Problem:
    """One problem; `pointer` is a JSON pointer into the request's body."""

    pointer: str
    message: str


def pointer_of(parts: Iterable[str | int]) -> str:
    """A JSON pointer from names and indices: `/objectives/0/name`, empty for the whole body."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


def complaint(*problems: Problem) -> PydanticCustomError:
    """The error that our own validators raise; pointers are relative to the validated value."""
    found = [(problem.pointer, problem.message) for problem in problems]
    text = "; ".join(problem.message for problem in problems)
    return PydanticCustomError(OURS, TEMPLATES[OURS], {"text": text, "problems": found})


def meant(name: str, known: Iterable[str]) -> str:
    """A question with the known names that are nearest to a wrong one, for its message: `; did you mean kd?`. `lr` is near
    `learning_rate`, of whose words it has the initials. Nothing if none is near."""
    by_word = {_word(each): each for each in known}
    initials = [word for word in by_word if "".join(part[:1] for part in word.split("_")) == name.lower()]
    near = initials or difflib.get_close_matches(_word(name), by_word, n=3, cutoff=0.7)
    return f"; did you mean {' or '.join(by_word[each] for each in near)}?" if near else ""


def _word(name: str) -> str:
    return name[:64].lower().replace("-", "_").replace(" ", "_")


def with_names(error: ValidationError, known: Iterable[str]) -> ValidationError:
    """The same error, whose messages of unknown fields of the validated object itself say which names are near; unchanged if
    it has very many entries."""
    if error.error_count() > MOST_NAMED:
        return error
    names = tuple(known)
    entries = [_named(entry, names) for entry in error.errors(include_url=False)]
    return ValidationError.from_exception_data(error.title, entries)


def _named(entry: Any, known: Sequence[str]) -> InitErrorDetails:
    kind, context = entry["type"], entry.get("ctx") or {}
    if kind == "extra_forbidden" and len(entry["loc"]) == 1:
        kind, context = UNKNOWN, {"near": meant(str(entry["loc"][0]), known)}
    if kind in TEMPLATES:  # pydantic knows only its own types by their names
        kind = PydanticCustomError(kind, TEMPLATES[kind], context)
    return {"type": kind, "loc": entry["loc"], "input": entry.get("input"), "ctx": context}


def tag(label: str) -> str:
    """The tag of a union's member in pydantic's error locations; the brackets distinguish it from a user's field names.

    The message of an unknown field in such a member shows the label.
    """
    return f"<{label}>"


def problems_of(error: ValidationError | Sequence[Any], skip: int = 0) -> list[Problem]:
    """The problems of a pydantic error (or its `.errors()`), without the first `skip` parts of each location.

    FastAPI puts `body` before the locations of a body's errors; `skip=1` removes it.
    """
    errors: Sequence[Any] = error.errors() if isinstance(error, ValidationError) else error
    found: dict[Problem, None] = {}
    for entry in errors:
        place = entry["loc"][skip:]
        parts = [part for part in place if not _is_tag(part)]
        for problem in _problems_in(entry, str(place[-2])[1:-1] if len(place) > 1 and _is_tag(place[-2]) else ""):
            found[Problem(pointer_of(parts) + problem.pointer, problem.message)] = None
    return list(found)


def _is_tag(part: str | int) -> bool:
    return isinstance(part, str) and part.startswith("<") and part.endswith(">")


def _problems_in(entry: Mapping[str, Any], label: str) -> list[Problem]:
    context = entry.get("ctx") or {}
    if entry["type"] == OURS:
        return [Problem(pointer, message) for pointer, message in context["problems"]]
    if entry["type"] in ("extra_forbidden", UNKNOWN) and label:
        return [Problem("", f"is not a parameter of {label}")]
    return [Problem("", _sentence(entry["type"], context, entry.get("input"), entry["msg"]))]


_TYPES = {
    "string": "a string", "int": "an integer", "float": "a number", "bool": "true or false", "list": "a list",
    "tuple": "a list", "dict": "an object", "model": "an object", "model_attributes": "an object", "none_required": "null",
}  # fmt: skip
_BOUNDS = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}


def _sentence(kind: str, context: Mapping[str, Any], value: Any, fallback: str) -> str:
    written = _written(value)
    if kind.removesuffix("_type") in _TYPES:
        return f"must be {_TYPES[kind.removesuffix('_type')]}, not {written}"
    bound = next((name for name in _BOUNDS if name in context), None)
    if bound:
        return f"must be {_BOUNDS[bound]} {context[bound]:g}, not {written}"
    sentences = {
        "missing": "is required",
        "extra_forbidden": "is not a known field",
        "literal_error": f"must be {context.get('expected')}, not {written}",
        "finite_number": "must be finite",
        "int_from_float": f"must be an integer, not {written}",
        "string_too_short": f"must have at least {_count(context.get('min_length'), 'character')}",
        "string_too_long": f"must have at most {_count(context.get('max_length'), 'character')}",
        "too_short": f"must have at least {_count(context.get('min_length'), 'item')}, not {context.get('actual_length')}",
        "too_long": f"must have at most {_count(context.get('max_length'), 'item')}",
        "json_invalid": "is not valid JSON",
        "recursion_loop": "must not contain itself",
    }
    return sentences.get(kind, fallback[:1].lower() + fallback[1:])


def _count(number: int | None, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _written(value: Any) -> str:
    """A value as it was sent, shortened to 64 characters."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    text = {None: "null", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
    text = text or repr(value)
    return text if len(text) <= 64 else f"{text[:60]}…"
