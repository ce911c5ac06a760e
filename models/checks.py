"""What cannot work in a resolved spec, found from the catalogue and from what inspections found: no network is built.

What needs networks (taps, channels of features) is checked by the engine, a moment later, with the same pointers.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from models.catalogue import known, nested_objectives
from models.facts import DatasetFacts, Facts
from models.problems import Problem, pointer_of

GREY, RGB = 1, 3


def check(resolved: Mapping[str, Any], facts: Facts) -> list[Problem]:
    """All problems of a resolved spec; what is not yet known of an input is not complained about."""
    found = [
        *_check_source(resolved, facts),
        *_check_student(resolved, facts),
        *_check_objectives(resolved, facts),
        *_check_training(resolved),
        *_check_dataset(resolved, facts),
        *_check_evaluation(resolved, facts),
    ]
    return list(dict.fromkeys(found))


def objectives_of(resolved: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every objective with its pointer: the job's own and those within its procedure and its source."""
    for index, objective in enumerate(resolved["objectives"]):
        yield pointer_of(["objectives", index]), objective
    for kind, place in (("procedures", "procedure"), ("sources", "source")):
        method = resolved[place]
        for parameter in nested_objectives(kind, method["name"]):
            for index, objective in enumerate(method[parameter] or ()):
                yield pointer_of([place, parameter, index]), objective


def needs_of(objective: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an objective needs with these parameters."""
    entry = known("objectives")[objective["name"]]
    for case in entry["needs_when"]:
        if objective.get(case["parameter"]) == case["value"]:
            return dict(case["needs"])
    return dict(entry["needs"])


def _check_source(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    name = resolved["source"]["name"]
    needs = known("sources")[name]["needs"]
    if needs["dataset"] and not resolved["dataset"]:
        yield Problem(
            "/dataset", f"the source {name!r} needs a dataset; give one, or leave the source out to synthesise"
        )
    if (needs["teacher"] or needs["teacher_gradient"]) and not resolved["teacher"]:
        yield Problem(
            "/teacher", f"the source {name!r} synthesises from a teacher; give a teacher, or a dataset to train on"
        )
    if (resolved["resources"]["gpus"] or 1) > 1 and not known("sources")[name]["divides"]:
        words = f"the source {name!r} makes its batches on one device; ask for 1, or give a dataset to train on"
        yield Problem("/resources/gpus", words)
    findings = facts.teacher.findings if facts.teacher else None
    if needs["teacher_gradient"] and findings and not findings["differentiable"]:
        yield Problem("/teacher", f"the source {name!r} needs gradients through the teacher, and it has none")


def _check_student(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    student, teacher = resolved["student"], facts.teacher
    if resolved["teacher"] is None:
        if student["input"] is None:
            yield Problem("/student/input", "is required without a teacher: say what the student reads")
        if student["classes"] is None and (facts.dataset is None or facts.dataset.inspected):
            yield Problem("/student/classes", "is required without a teacher: say how many classes there are")
    elif teacher is not None and student["input"] is not None and student["input"] != _floats(teacher.input):
        yield Problem("/student/input", "must be the teacher's, since both see the same images; leave it out")


def _check_objectives(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    samplers: dict[str, str] = {}
    procedure = known("procedures")[resolved["procedure"]["name"]]
    for pointer, objective in objectives_of(resolved):
        needs = needs_of(objective)
        yield from _check_fields(pointer, objective["name"], needs, resolved)
        yield from _check_classes(pointer, objective["name"], needs, resolved, facts)
        if needs["teacher"] and not resolved["teacher"] and not procedure.get("own_teacher"):
            yield Problem(pointer, f"{objective['name']} compares the student with a teacher, and the job has none")
        if needs["sampler"]:
            first = samplers.setdefault(needs["sampler"], pointer)
            if len(samplers) > 1 and first == pointer:
                yield Problem(pointer, f"two objectives demand different samplers: {', '.join(samplers)}")


def _check_fields(pointer: str, name: str, needs: Mapping[str, Any], resolved: Mapping[str, Any]) -> Iterator[Problem]:
    source = known("sources")[resolved["source"]["name"]]
    for field in needs["fields"]:
        if field not in source["provides"]:
            missing = {"label": "labels", "index": "an index of every image"}.get(field, f"the field {field!r}")
            yield Problem(pointer, f"{name} needs {missing}; give a dataset, or leave {name} out")
    if needs["sampler"] and needs["sampler"] not in source["samplers"]:
        why = "draws its batches in a way of its own, which the source has not"
        yield Problem(pointer, f"{name} {why}; give a dataset, or leave {name} out")
    if source["synthesises"] and needs["prepass"]:
        yield Problem(pointer, f"{name} looks at all images before it begins; give a dataset, or leave {name} out")


def _check_classes(
    pointer: str, name: str, needs: Mapping[str, Any], resolved: Mapping[str, Any], facts: Facts
) -> Iterator[Problem]:
    classes = resolved["student"]["classes"]
    if classes is None:
        return
    if classes < needs["minimum_classes"]:
        yield Problem(pointer, f"{name} needs at least {needs['minimum_classes']} classes, and there are {classes}")
    if needs["logits"] and facts.teacher and facts.teacher.classes != classes:
        yield Problem(
            pointer,
            f"{name} compares logits, but the teacher tells {facts.teacher.classes} classes apart and the student {classes}",
        )
    dataset = facts.dataset
    if "label" in needs["fields"] and dataset and dataset.classes and dataset.classes != classes:
        yield Problem(
            pointer, f"{name} needs labels, but the dataset has {dataset.classes} classes and the student {classes}"
        )


def _check_training(resolved: Mapping[str, Any]) -> Iterator[Problem]:
    training = resolved["training"]
    if training["selection"] == "best" and not training["validation_fraction"]:
        yield Problem("/training/validation_fraction", "must be greater than 0 to choose the best weights by")
    if training["validation_fraction"] and not resolved["dataset"]:
        yield Problem("/training/validation_fraction", "holds back a part of the dataset, and there is none")


def _check_dataset(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    if facts.dataset is None or not facts.dataset.inspected:
        return
    yield from _check_channels("/dataset", facts.dataset, resolved)
    if "train" not in facts.dataset.splits:
        yield Problem("/dataset", "has no images to train on, only those of its `test` part")
    alone = [name for name, count in facts.dataset.per_class("train") if count == 1]
    if alone and _draws_per_class(resolved):
        listed = ", ".join(alone[:8]) + (f" and {len(alone) - 8} more" if len(alone) > 8 else "")
        yield Problem("/dataset", f"has a single training image of each of these classes, without a mate: {listed}")


def _draws_per_class(resolved: Mapping[str, Any]) -> bool:
    demands = {needs_of(objective)["sampler"] for _, objective in objectives_of(resolved)}
    return "per_class" in (resolved["source"].get("sampler"), *demands)


def _check_evaluation(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    evaluation = resolved["evaluation"]
    if evaluation is None:
        return
    own = evaluation["dataset"] == resolved["dataset"]
    dataset = facts.evaluation or (facts.dataset if own else None)
    if dataset is None or not dataset.inspected:
        return
    if not own:
        yield from _check_channels("/evaluation/dataset", dataset, resolved)
    if evaluation["split"] not in (None, *dataset.splits):
        yield Problem("/evaluation/split", f"the dataset has no such part; it has {', '.join(dataset.splits)}")
    classes = resolved["student"]["classes"]
    if classes and dataset.classes and dataset.classes != classes:
        at = "/evaluation/dataset" if not own else "/student/classes"
        yield Problem(
            at, f"the dataset that measures the student has {dataset.classes} classes, and the student {classes}"
        )


def _check_channels(pointer: str, dataset: DatasetFacts, resolved: Mapping[str, Any]) -> Iterator[Problem]:
    contract, channels = resolved["student"]["input"], dataset.channels
    if contract is None or channels is None or channels == contract["channels"]:
        return
    if channels != GREY and (channels, contract["channels"]) != (RGB, GREY):
        yield Problem(
            pointer,
            f"its images have {channels} channels and the networks read {contract['channels']}; "
            "only grey and RGB are turned into each other",
        )


def _floats(contract: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(map(float, value)) if name in ("mean", "std") else value for name, value in contract.items()}
