"""A student's initial weights: slices of its teacher, the teacher's merged neurons, random or pretrained weights, or an
upload."""

from collections.abc import Iterator, Mapping
from operator import le
from typing import Annotated, Any

from pydantic import AfterValidator, StringConstraints

from models.pretrained.weights_folder import PRETRAINED, asked, files_of
from models.spec.catalogue import PROGRAM, choices, known, network_entry
from models.spec.facts import Facts
from models.spec.problems import Problem, complaint
from models.spec.teacher_reads import has_two_images

TEACHER, RANDOM = "teacher", "random"
OF_THE_TEACHER = choices("weights_from_teacher")
WORDS = (*OF_THE_TEACHER, RANDOM, PRETRAINED)
FILE = "fil_"
DIRECT = "direct"
BETTER = "its weights are a better start than random ones"


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


def choose(student: Mapping[str, Any], source: Mapping[str, Any], procedure: str, facts: Facts) -> tuple[str, str]:
    """The default initial weights of a resolved `student`, and the reason.

    With a dataset, they are slices of a larger teacher if the procedure is `direct`; other procedures begin as in their
    papers, and a student as large as its teacher begins at random, since it would begin as the teacher.
    """
    teacher, synthesises = facts.teacher, known("sources")[source["name"]]["synthesises"]
    if teacher is None and not synthesises:
        return RANDOM, ""
    if teacher is None or facts.others:
        return RANDOM, "there is no single teacher whose channels the student could take"
    if (
        has_two_images(source)
        or student["classes"] != teacher.classes
        or not _reads_alike(student["input"], teacher.input)
    ):
        return RANDOM, "the student has other classes or reads other images than the teacher"
    if not synthesises and procedure != DIRECT:
        return RANDOM, f"the procedure {procedure} begins with random weights in its paper"
    if student.get("like"):
        if student["width"] == 1 and not synthesises:
            return RANDOM, "the student is as large as the teacher"
        return TEACHER, f"the student has the teacher's structure, and {BETTER}"
    if not _is_slice(student, teacher.network, teacher.options):
        return RANDOM, f"{student['network']} is not known to be a slice of {teacher.network}"
    if not synthesises and _is_slice({"network": teacher.network, "options": teacher.options}, **_named(student)):
        return RANDOM, "the student is as large as the teacher"
    return TEACHER, f"{student['network']} is a slice of {teacher.network}, and {BETTER}"


def _reads_alike(one: Mapping[str, Any] | None, other: Mapping[str, Any]) -> bool:
    """Whether two networks read images of the same shape; the student's input is None if it is the teacher's."""
    return one is None or all(one[name] == other[name] for name in ("channels", "height", "width"))


def _named(student: Mapping[str, Any]) -> dict[str, Any]:
    return {name: student[name] for name in ("network", "options")}


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
    pairs = [[_numbers(each.pop(name)) for each in (ours, theirs)] for name in entry.get("widths", ())]
    fewer = (len(own) == len(given) and all(map(le, own, given)) for own, given in pairs)
    return ours == theirs and all(fewer)


def _numbers(widths: Any) -> list[int]:
    """The numbers of channels of an option that holds widths."""
    return widths if isinstance(widths, list) else [] if widths is None else [widths]


def _options(network: str, given: Mapping[str, Any]) -> dict[str, Any]:
    properties = network_entry(network).get("parameters", {}).get("properties", {})
    return {name: schema["default"] for name, schema in properties.items() if "default" in schema} | dict(given)
