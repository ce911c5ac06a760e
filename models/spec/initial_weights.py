"""A student's initial weights: slices of its teacher, the teacher's merged neurons, random or pretrained weights, or an
upload."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, StringConstraints

from models.pretrained.weights_folder import PRETRAINED, asked, files_of
from models.spec.catalogue import PROGRAM, choices, known, network_entry
from models.spec.facts import Facts
from models.spec.problems import Problem, complaint

TEACHER, RANDOM = "teacher", "random"
OF_THE_TEACHER = choices("weights_from_teacher")
WORDS = (*OF_THE_TEACHER, RANDOM, PRETRAINED)
FILE = "fil_"


def _checked(value: str) -> str:
    if value not in WORDS and not value.startswith(FILE):
        words = f"must be {', '.join(f'`{each}`' for each in WORDS)}, or the id of a file, beginning with {FILE}"
        raise complaint(Problem("", words))
    return value


InitialWeights = Annotated[str, StringConstraints(max_length=64), AfterValidator(_checked)]


def file_of(initial_weights: str | None) -> str | None:
    """The id of the uploaded file of initial weights; None for other initial weights."""
    return initial_weights if (initial_weights or "").startswith(FILE) else None


def check_pretrained(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """Whether the networks of a resolved spec that start from pretrained weights have some."""
    for pointer, network in asked(spec):
        if not files_of(network):
            words = f"must not be `{PRETRAINED}`: there are no official weights of {network}"
            yield Problem(f"{pointer}/initial_weights", f"{words}; only of `torchvision/…` and `timm/…` networks")


def choose(student: Mapping[str, Any], source: str, facts: Facts) -> tuple[str, str]:
    """The default initial weights of a resolved `student`, and the reason (empty for a source that trains on a
    dataset).

    With a dataset they are random, as in the papers.
    """
    teacher = facts.teacher
    if not known("sources")[source]["synthesises"]:
        return RANDOM, ""
    if teacher is None or facts.others:
        return RANDOM, "there is no single teacher whose channels the student could take"
    if student["classes"] != teacher.classes or not _is_slice(student, teacher.network, teacher.options):
        return RANDOM, f"{student['network']} is not known to be a slice of {teacher.network}"
    return (
        TEACHER,
        f"{student['network']} is a slice of {teacher.network}, and without data its weights are a better start than random ones",
    )


def _is_slice(student: Mapping[str, Any], network: str, options: Mapping[str, Any]) -> bool:
    """Whether the catalogue lists the student's channels as a subset of the teacher's. Neither network is built."""
    if student["network"] == PROGRAM:
        return False  # its layers are not known before it is built
    entry = known("networks").get(student["network"], {})
    ours, theirs = (
        _options(name, given) for name, given in ((student["network"], student["options"]), (network, options))
    )
    if student["network"] != network:
        plain = ours == _options(student["network"], {}) and theirs == _options(network, {})
        return plain and network in entry.get("slice_of", ())
    widths = entry.get("widths")
    own, given = (list(each.pop(widths, ())) for each in (ours, theirs))
    return (
        ours == theirs and len(own) == len(given) and all(one <= other for one, other in zip(own, given, strict=True))
    )


def _options(network: str, given: Mapping[str, Any]) -> dict[str, Any]:
    properties = network_entry(network).get("parameters", {}).get("properties", {})
    return {name: schema["default"] for name, schema in properties.items() if "default" in schema} | dict(given)
