"""Checks of a job whose teacher reads another image of each sample than the student.

See docs/decisions/two-images.md.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from models.spec.catalogue import needs_of
from models.spec.facts import Facts
from models.spec.problems import Problem
from models.spec.teacher_spec import is_trained_first

GREY, RGB = 1, 3


def has_two_images(source: Mapping[str, Any]) -> bool:
    """Whether a source, with all its parameters, gives the teacher other images than the student."""
    return bool(source.get("teacher_reads", "image") != "image")


def check_two_images(
    resolved: Mapping[str, Any], facts: Facts, objectives: Iterable[tuple[str, Mapping[str, Any]]]
) -> Iterator[Problem]:
    """Problems of a resolved spec; `objectives` are all of its objectives, with their pointers."""
    if not has_two_images(resolved["source"]):
        return
    if resolved["teacher"] is None or is_trained_first(resolved["teacher"]):
        yield Problem("/source/teacher_reads", "needs a trained teacher, and the job has none")
    elif resolved["student"]["input"] is None:
        yield Problem("/student/input", "is required: the teacher reads other images, so there is no default")
    for pointer, objective in objectives:
        if needs_of(objective)["one_image"]:
            yield Problem(pointer, f"{objective['name']} needs teacher and student to read the same image")
    yield from _check_views(resolved, facts)
    yield from _check_dataset(facts)


def _check_views(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    student, teacher = resolved["student"]["input"], facts.teacher.input if facts.teacher else None
    if resolved["source"]["augmentation"] == "none" or student is None or teacher is None:
        return
    sizes = [f"{each['height']}x{each['width']}" for each in (student, teacher)]
    if sizes[0] != sizes[1]:
        words = f"needs images of one size, but the student reads {sizes[0]} and the teacher {sizes[1]}; set `none`"
        yield Problem("/source/augmentation", words)


def _check_dataset(facts: Facts) -> Iterator[Problem]:
    if facts.dataset is None or facts.dataset.findings is None:
        return
    other = facts.dataset.findings.get("privileged")
    if other is None:
        yield Problem("/dataset", "has no `privileged` images for the teacher to read")
    elif facts.teacher is not None:
        has, reads = other["channels"], facts.teacher.input["channels"]
        if has not in (reads, GREY) and (has, reads) != (RGB, GREY):
            words = f"has privileged images of {has} channels, but the teacher reads {reads}"
            yield Problem("/dataset", f"{words}; only greyscale and RGB are converted into each other")
