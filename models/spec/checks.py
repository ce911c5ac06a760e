"""Checks of a resolved spec against the catalogue and the findings of inspections. No network is built.

The engine checks what needs networks (taps, channels of features) soon after, with the same pointers.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from models.records import File
from models.spec.catalogue import PROGRAM, effective, known, needs_of, nested_files, nested_objectives, values_with
from models.spec.class_names import check_class_names, names_of, none_shared
from models.spec.defaults import provided, reads_labels
from models.spec.facts import DatasetFacts, Facts
from models.spec.initial_weights import check_pretrained
from models.spec.named_files import named_files
from models.spec.problems import Problem, pointer_of
from models.spec.procedure_checks import check_procedure, filled_objectives
from models.spec.task_checks import check_task, outputs_asked, task_of
from models.spec.teacher_reads import check_two_images, has_two_images
from models.spec.teacher_spec import is_trained_first
from models.spec.transform_checks import check_transforms

GREY, RGB = 1, 3


def check(resolved: Mapping[str, Any], facts: Facts) -> list[Problem]:
    """All problems of a resolved spec. A check that needs the findings of an uninspected input is skipped."""
    filled_in = {place for place, _ in filled_objectives(resolved["procedure"])}
    found = [
        *_check_source(resolved, facts),
        *_check_batch_norm(resolved, facts),
        *_check_teachers(resolved, facts),
        *_check_files(resolved, facts),
        *_check_student(resolved, facts),
        *check_pretrained(resolved),
        *_check_objectives(resolved, facts),
        *_check_training(resolved),
        *check_transforms(resolved),
        *check_procedure(resolved, bool(resolved["dataset"]) and not _ignores_labels(resolved)),
        *_check_dataset(resolved, facts),
        *_check_evaluation(resolved, facts),
        *check_class_names(resolved, facts),
        *check_task(resolved, facts, objectives_of(resolved)),
        *check_two_images(resolved, facts, objectives_of(resolved)),
    ]
    return list(dict.fromkeys(_of_filled(problem) if problem.pointer in filled_in else problem for problem in found))


def _of_filled(problem: Problem) -> Problem:
    return Problem(problem.pointer, f"adds an objective that does not fit this job: {problem.message}")


def objectives_of(resolved: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every objective with its pointer: those of the job, of its procedure and of its source, given or filled in."""
    for index, objective in enumerate(resolved["objectives"]):
        yield pointer_of(["objectives", index]), objective
    for kind, place in (("procedures", "procedure"), ("sources", "source")):
        method = resolved[place]
        for parameter in nested_objectives(kind, method["name"]):
            for index, objective in enumerate(method[parameter] or ()):
                yield pointer_of([place, parameter, index]), objective
    yield from filled_objectives(resolved["procedure"])


def _check_source(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    name = resolved["source"]["name"]
    needs = known("sources")[name]["needs"]
    if needs["dataset"] and not resolved["dataset"]:
        yield Problem(
            "/dataset", f"the source {name!r} needs a dataset; set one, or omit `source` to synthesise images"
        )
    if (needs["teacher"] or needs["teacher_gradient"]) and not resolved["teacher"]:
        yield Problem(
            "/teacher", f"the source {name!r} needs a teacher; set one, or set a dataset and the source `dataset`"
        )
    if (resolved["resources"]["gpus"] or 1) > 1 and not known("sources")[name]["divides"]:
        words = f"must be 1: the source {name!r} runs on one device; set 1, or train on a dataset"
        yield Problem("/resources/gpus", words)
    findings = facts.teacher.findings if facts.teacher else None
    if needs["teacher_gradient"] and findings and not findings["differentiable"]:
        outputs_only = ", ".join(sorted(other for other, entry in known("sources").items() if _asks_outputs(entry)))
        words = f"is not differentiable, but the source {name!r} needs gradients through the teacher"
        yield Problem("/teacher", f"{words}; use one of the sources {outputs_only}")


def _asks_outputs(source: Mapping[str, Any]) -> bool:
    """Whether a source works without gradients through a teacher."""
    return not source["needs"]["teacher_gradient"]


def _check_batch_norm(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    source, findings = resolved["source"], facts.teacher.findings if facts.teacher else None
    name, reads = source["name"], bool(source.get("statistics_weight", True))
    if reads and known("sources")[name]["needs"].get("batch_norm") and findings and not findings["batch_norm"]:
        words = f"has no BatchNorm layers, but the source {name!r} matches BatchNorm statistics"
        yield Problem("/teacher", f"{words}; use the source `dafl` or `dfad`")


def _check_teachers(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    """Whether the teachers agree in classes and input, and whether a teacher that is trained first gets labels."""
    for other in facts.others:
        first = facts.teacher or other
        if other.classes != first.classes:
            yield Problem(other.pointer, f"has {other.classes} classes, but the first teacher has {first.classes}")
        if _size(other.input) != _size(first.input):
            words = f"reads images of {_size(other.input)}, but the first teacher reads {_size(first.input)}"
            yield Problem(other.pointer, words)
    if not is_trained_first(resolved["teacher"]):
        return
    source = resolved["source"]
    if _synthesises(resolved) or "label" not in provided(source) or _ignores_labels(resolved):
        yield Problem(
            "/teacher", f"is trained on labels, but the source {source['name']!r} provides no labels of a dataset"
        )


def _size(contract: Mapping[str, Any]) -> str:
    return " x ".join(str(contract[name]) for name in ("channels", "height", "width"))


def _check_files(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    """Whether the files that methods name are given, have the required kind, and match the teacher."""
    source = resolved["source"]
    for parameter in known("sources")[source["name"]]["needs"].get("files", ()):
        if not source[parameter]:
            kind = nested_files("sources", source["name"])[parameter]
            yield Problem(pointer_of(["source", parameter]), f"is required: set the id of a file of the kind `{kind}`")
    classes = facts.teacher.classes if facts.teacher else resolved["student"]["classes"]
    for named in named_files(resolved):
        file = facts.files.get(named.pointer)
        if file is None:
            continue
        if file.kind != named.kind:
            yield Problem(named.pointer, f"must be a file of the kind `{named.kind}`, not `{file.kind}`")
        of = (file.findings or {}).get("classes")
        if file.kind == named.kind != PROGRAM and of and classes and of != classes:
            yield Problem(named.pointer, f"is for {of} classes, but the teacher has {classes}")
        yield from _check_taps(named.pointer, file, facts)


def _check_taps(pointer: str, file: File, facts: Facts) -> Iterator[Problem]:
    """Whether the teacher has the taps of a file of statistics, with as many values each."""
    statistics = (file.findings or {}).get("taps") or {}
    taps = ((facts.teacher.findings if facts.teacher else None) or {}).get("taps") or {}
    for tap, numbers in statistics.items():
        if taps and not tap.endswith(":in") and (tap not in taps or math.prod(taps[tap]) != numbers):
            has = f"{math.prod(taps[tap])} values there" if tap in taps else "no such tap"
            yield Problem(pointer, f"has statistics of {numbers} values at {tap!r}, but the teacher has {has}")


def _check_student(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    student, teacher = resolved["student"], facts.teacher
    if student.get("like") and (resolved["teacher"] is None or facts.others):
        why = "several" if facts.others else "none"
        yield Problem("/student/like", f"needs one teacher, and the job has {why}; set `network` instead")
    if resolved["teacher"] is None or is_trained_first(resolved["teacher"]):
        if student["input"] is None:
            yield Problem("/student/input", "is required: without a trained teacher there is no default")
        if student["classes"] is None and (facts.dataset is None or facts.dataset.inspected):
            yield Problem("/student/classes", "is required: without a trained teacher or a dataset there is no default")
    elif has_two_images(resolved["source"]) or teacher is None or student["input"] is None:
        return
    elif student["input"] != _floats(teacher.input):
        yield Problem("/student/input", "must equal the teacher's input, as both read the same images; omit it")


def _check_objectives(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    samplers: dict[str, str] = {}
    findings = facts.teacher.findings if facts.teacher else None
    procedure = known("procedures")[resolved["procedure"]["name"]]
    for pointer, objective in objectives_of(resolved):
        needs = needs_of(objective)
        yield from _check_fields(pointer, objective["name"], needs, resolved)
        yield from _check_classes(pointer, objective["name"], needs, resolved, facts)
        if needs["teacher"] and not resolved["teacher"] and not procedure.get("own_teacher"):
            yield Problem(pointer, f"{objective['name']} needs a teacher, and the job has none")
        if needs["peers"] and not effective("procedures", resolved["procedure"], "cohort"):
            words = "needs other members of a cohort, and the job trains one student"
            yield Problem(pointer, f"{objective['name']} {words}; set the procedure to `mutual`")
        if needs["input_gradient"] and needs["teacher"] and findings and not findings["differentiable"]:
            yield Problem(
                pointer, f"{objective['name']} needs gradients through the teacher, which is not differentiable"
            )
        if needs["sampler"]:
            first = samplers.setdefault(needs["sampler"], pointer)
            if len(samplers) > 1 and first == pointer:
                yield Problem(pointer, f"two objectives need different samplers: {', '.join(samplers)}")


def _check_fields(pointer: str, name: str, needs: Mapping[str, Any], resolved: Mapping[str, Any]) -> Iterator[Problem]:
    source = known("sources")[resolved["source"]["name"]]
    for field in needs["fields"]:
        if field not in provided(resolved["source"]):
            missing = {
                "label": "labels",
                "index": "an index of every image",
                "mask": "masks",
                "depth": "the depth of every pixel",
            }.get(field, f"the field {field!r}")
            cases = values_with("sources", resolved["source"]["name"], "provides")
            fitting = [f"set source/{name} to {value!r}" for name, value, fields in cases if field in fields]
            ways = fitting or ["train on a dataset"]
            yield Problem(pointer, f"{name} needs {missing}; {ways[0]}, or remove {name}")
    if needs["sampler"] and needs["sampler"] not in source["samplers"]:
        why = f"needs the sampler {needs['sampler']!r}, which the source does not have"
        yield Problem(pointer, f"{name} {why}; train on a dataset, or remove {name}")
    if source["synthesises"] and needs["prepass"]:
        yield Problem(pointer, f"{name} reads all images before training; train on a dataset, or remove {name}")


def _from_one(facts: Facts) -> str:
    """What to do about a dataset whose labels begin at 1 rather than at 0; empty if they do not."""
    counts = [count for _, count in facts.dataset.per_class("train")] if facts.dataset else []
    teacher = facts.teacher.classes if facts.teacher else 0
    if len(counts) != teacher + 1 or counts[0] != 0 or 0 in counts[1:]:
        return ""
    words = f"class 0 of the dataset has no image, so its labels seem to begin at 1 (1 to {teacher})"
    return f"; {words}: subtract 1 from each label, and upload the dataset again"


def _check_classes(
    pointer: str, name: str, needs: Mapping[str, Any], resolved: Mapping[str, Any], facts: Facts
) -> Iterator[Problem]:
    classes = resolved["student"]["classes"]
    if classes is None:
        return
    if classes < needs["minimum_classes"]:
        yield Problem(
            pointer, f"{name} needs at least {needs['minimum_classes']} classes, but the student has {classes}"
        )
    if needs["logits"] and facts.teacher and facts.teacher.classes != classes:
        words = f"the teacher has {facts.teacher.classes} classes and the student {classes}"
        yield Problem(pointer, f"{name} compares logits, but {words}{_from_one(facts)}")
    elif needs["logits"] and _learns_other_classes(resolved, facts):
        words = "compares logits, but the teacher and the dataset have no class name in common"
        yield Problem(pointer, f"{name} {words}; use an objective that compares features")
    task = resolved["task"]
    asked = None if _ignores_labels(resolved) else outputs_asked(facts.dataset, task)
    if task_of(task)["field"] in needs["fields"] and asked and asked != classes:
        yield Problem(pointer, f"{name} needs labels, but the dataset has {asked} classes and the student {classes}")


def _learns_other_classes(resolved: Mapping[str, Any], facts: Facts) -> bool:
    """Whether the student learns labels of classes of which its teacher has none, by name."""
    learns = reads_labels(resolved["source"], resolved["objectives"], resolved["task"])
    return learns and none_shared(names_of(facts.dataset), facts.teacher.class_names if facts.teacher else ())


def _check_training(resolved: Mapping[str, Any]) -> Iterator[Problem]:
    training = resolved["training"]
    if training["selection"] == "best" and not training["validation_fraction"]:
        yield Problem(
            "/training/validation_fraction",
            "must be greater than 0 if selection is `best`: the best weights are chosen on held-out images",
        )
    if training["validation_fraction"] and not resolved["dataset"]:
        yield Problem("/training/validation_fraction", "needs a dataset, and the job has none; set 0")
    elif training["validation_fraction"] and (_ignores_labels(resolved) or _synthesises(resolved)):
        words = f"needs labelled images, and the source {resolved['source']['name']!r} provides none; set 0"
        yield Problem("/training/validation_fraction", words)


def _ignores_labels(resolved: Mapping[str, Any]) -> bool:
    return bool(known("sources")[resolved["source"]["name"]].get("ignores_labels"))


def _synthesises(resolved: Mapping[str, Any]) -> bool:
    return bool(known("sources")[resolved["source"]["name"]]["synthesises"])


def _check_dataset(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    if facts.dataset is None or not facts.dataset.inspected:
        return
    yield from _check_channels("/dataset", facts.dataset, resolved)
    if "train" not in facts.dataset.splits:
        yield Problem("/dataset", "has no `train` split, only a `test` split; upload a dataset with training images")
    alone = [name for name, count in facts.dataset.per_class("train") if count == 1]
    if alone and _draws_per_class(resolved):
        listed = ", ".join(alone[:8]) + (f" and {len(alone) - 8} more" if len(alone) > 8 else "")
        yield Problem(
            "/dataset", f"must have at least two training images of each class; these classes have one: {listed}"
        )


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
        yield Problem("/evaluation/split", f"the dataset has no such split; it has {', '.join(dataset.splits)}")
    classes = resolved["student"]["classes"]
    asked = outputs_asked(dataset, resolved["task"])
    if classes and asked and asked != classes:
        at = "/evaluation/dataset" if not own else "/student/classes"
        yield Problem(at, f"the evaluation dataset has {asked} classes, but the student has {classes}")


def _check_channels(pointer: str, dataset: DatasetFacts, resolved: Mapping[str, Any]) -> Iterator[Problem]:
    contract, channels = resolved["student"]["input"], dataset.channels
    if contract is None or channels is None or channels == contract["channels"]:
        return
    if channels != GREY and (channels, contract["channels"]) != (RGB, GREY):
        yield Problem(
            pointer,
            f"has images of {channels} channels, but the networks read {contract['channels']}; "
            "only greyscale and RGB are converted into each other",
        )


def _floats(contract: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(map(float, value)) if name in ("mean", "std") else value for name, value in contract.items()}
