"""What cannot work in a resolved spec, found from the catalogue and from what inspections found: no network is built.

What needs networks (taps, channels of features) is checked by the engine, a moment later, with the same pointers.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from models.records import File
from models.spec.catalogue import known, needs_of, nested_files, nested_objectives, values_with
from models.spec.defaults import provided, reads_labels
from models.spec.facts import DatasetFacts, Facts
from models.spec.named_files import named_files
from models.spec.problems import Problem, pointer_of
from models.spec.procedure_checks import check_procedure, filled_objectives
from models.spec.task_checks import check_task, outputs_asked, task_of
from models.spec.teacher_reads import are_two, check_pictures
from models.spec.teacher_spec import is_trained_first

GREY, RGB = 1, 3


def check(resolved: Mapping[str, Any], facts: Facts) -> list[Problem]:
    """All problems of a resolved spec; what is not yet known of an input is not complained about."""
    filled_in = {place for place, _ in filled_objectives(resolved["procedure"])}
    found = [
        *_check_source(resolved, facts),
        *_check_batch_norm(resolved, facts),
        *_check_teachers(resolved, facts),
        *_check_files(resolved, facts),
        *_check_student(resolved, facts),
        *_check_objectives(resolved, facts),
        *_check_training(resolved),
        *check_procedure(resolved, bool(resolved["dataset"]) and not _ignores_labels(resolved)),
        *_check_dataset(resolved, facts),
        *_check_evaluation(resolved, facts),
        *check_task(resolved, facts, objectives_of(resolved)),
        *check_pictures(resolved, facts, objectives_of(resolved)),
    ]
    return list(dict.fromkeys(_of_filled(problem) if problem.pointer in filled_in else problem for problem in found))


def _of_filled(problem: Problem) -> Problem:
    return Problem(problem.pointer, f"fills in an objective that cannot work: {problem.message}")


def objectives_of(resolved: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every objective with its pointer: the job's own and those within its procedure and its source, written or filled in."""
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
        outputs_only = ", ".join(sorted(other for other, entry in known("sources").items() if _asks_outputs(entry)))
        words = f"gives outputs only, and the source {name!r} needs gradients through it"
        yield Problem("/teacher", f"{words}; sources that do not are {outputs_only}")


def _asks_outputs(source: Mapping[str, Any]) -> bool:
    """Whether a source asks a teacher for its outputs, or nothing."""
    return not source["needs"]["teacher_gradient"]


def _check_batch_norm(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    source, findings = resolved["source"], facts.teacher.findings if facts.teacher else None
    name, reads = source["name"], bool(source.get("statistics_weight", True))
    if reads and known("sources")[name]["needs"].get("batch_norm") and findings and not findings["batch_norm"]:
        words = f"has no BatchNorm layers, and the source {name!r} matches the statistics that they keep"
        yield Problem("/teacher", f"{words}; the sources `dafl` and `dfad` do without")


def _check_teachers(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    """Whether the teachers go together, and whether one that does not exist yet can be trained."""
    for other in facts.others:
        first = facts.teacher or other
        if other.classes != first.classes:
            yield Problem(other.pointer, f"tells {other.classes} classes apart, and the first teacher {first.classes}")
        if _size(other.input) != _size(first.input):
            words = f"reads images of {_size(other.input)}, and the first teacher of {_size(first.input)}"
            yield Problem(other.pointer, words)
    if not is_trained_first(resolved["teacher"]):
        return
    source = resolved["source"]
    if _synthesises(resolved) or "label" not in provided(source) or _ignores_labels(resolved):
        yield Problem("/teacher", f"is trained on labels, and the source {source['name']!r} gives none of a dataset")


def _size(contract: Mapping[str, Any]) -> str:
    return " x ".join(str(contract[name]) for name in ("channels", "height", "width"))


def _check_files(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    """Whether the files that methods name are there, are of their kinds, and are those of the teacher."""
    source = resolved["source"]
    for parameter in known("sources")[source["name"]]["needs"].get("files", ()):
        if not source[parameter]:
            kind = nested_files("sources", source["name"])[parameter]
            yield Problem(pointer_of(["source", parameter]), f"is required: the id of a file of the kind `{kind}`")
    classes = facts.teacher.classes if facts.teacher else resolved["student"]["classes"]
    for named in named_files(resolved):
        file = facts.files.get(named.pointer)
        if file is None:
            continue
        if file.kind != named.kind:
            yield Problem(named.pointer, f"must be a file of the kind `{named.kind}`, and this one is of `{file.kind}`")
        of = (file.findings or {}).get("classes")
        if file.kind == named.kind and of and classes and of != classes:
            yield Problem(named.pointer, f"is of {of} classes, and the teacher tells {classes} apart")
        yield from _check_taps(named.pointer, file, facts)


def _check_taps(pointer: str, file: File, facts: Facts) -> Iterator[Problem]:
    """Whether a teacher has the activations that statistics tell of."""
    statistics = (file.findings or {}).get("taps") or {}
    taps = ((facts.teacher.findings if facts.teacher else None) or {}).get("taps") or {}
    for tap, numbers in statistics.items():
        if taps and not tap.endswith(":in") and (tap not in taps or math.prod(taps[tap]) != numbers):
            has = f"{math.prod(taps[tap])} numbers there" if tap in taps else "no such activation"
            yield Problem(pointer, f"tells of {numbers} numbers at {tap!r}, and the teacher has {has}")


def _check_student(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    student, teacher = resolved["student"], facts.teacher
    if resolved["teacher"] is None or is_trained_first(resolved["teacher"]):
        if student["input"] is None:
            yield Problem("/student/input", "is required without a finished teacher: say what the student reads")
        if student["classes"] is None and (facts.dataset is None or facts.dataset.inspected):
            yield Problem("/student/classes", "is required without a finished teacher: say how many classes there are")
    elif are_two(resolved["source"]) or teacher is None or student["input"] is None:
        return
    elif student["input"] != _floats(teacher.input):
        yield Problem("/student/input", "must be the teacher's, since both see the same images; leave it out")


def _check_objectives(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    samplers: dict[str, str] = {}
    findings = facts.teacher.findings if facts.teacher else None
    procedure = known("procedures")[resolved["procedure"]["name"]]
    for pointer, objective in objectives_of(resolved):
        needs = needs_of(objective)
        yield from _check_fields(pointer, objective["name"], needs, resolved)
        yield from _check_classes(pointer, objective["name"], needs, resolved, facts)
        if needs["teacher"] and not resolved["teacher"] and not procedure.get("own_teacher"):
            yield Problem(pointer, f"{objective['name']} compares the student with a teacher, and the job has none")
        if needs["peers"] and not procedure.get("cohort", True):
            words = "learns from the other members of a cohort, and the job trains none"
            yield Problem(pointer, f"{objective['name']} {words}; choose the procedure `mutual`")
        if needs["input_gradient"] and needs["teacher"] and findings and not findings["differentiable"]:
            yield Problem(pointer, f"{objective['name']} needs gradients through the teacher, which gives outputs only")
        if needs["sampler"]:
            first = samplers.setdefault(needs["sampler"], pointer)
            if len(samplers) > 1 and first == pointer:
                yield Problem(pointer, f"two objectives demand different samplers: {', '.join(samplers)}")


def _check_fields(pointer: str, name: str, needs: Mapping[str, Any], resolved: Mapping[str, Any]) -> Iterator[Problem]:
    source = known("sources")[resolved["source"]["name"]]
    for field in needs["fields"]:
        if field not in provided(resolved["source"]):
            missing = {"label": "labels", "index": "an index of every image"}.get(field, f"the field {field!r}")
            cases = values_with("sources", resolved["source"]["name"], "provides")
            fitting = [f"set source/{name} to {value!r}" for name, value, fields in cases if field in fields]
            ways = fitting or ["give a dataset"]
            yield Problem(pointer, f"{name} needs {missing}; {ways[0]}, or leave {name} out")
    if needs["sampler"] and needs["sampler"] not in source["samplers"]:
        why = "draws its batches in a way of its own, which the source has not"
        yield Problem(pointer, f"{name} {why}; give a dataset, or leave {name} out")
    if source["synthesises"] and needs["prepass"]:
        yield Problem(pointer, f"{name} looks at all images before it begins; give a dataset, or leave {name} out")


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
        yield Problem(pointer, f"{name} needs at least {needs['minimum_classes']} classes, and there are {classes}")
    if needs["logits"] and facts.teacher and facts.teacher.classes != classes:
        words = f"the teacher tells {facts.teacher.classes} classes apart and the student {classes}"
        yield Problem(pointer, f"{name} compares logits, but {words}{_from_one(facts)}")
    elif needs["logits"] and _learns_strangers(resolved, facts):
        words = "compares logits, but no class of the teacher's has the name of one of the dataset's, which the student learns"
        yield Problem(pointer, f"{name} {words}; compare features")
    task = resolved["task"]
    asked = None if _ignores_labels(resolved) else outputs_asked(facts.dataset, task)
    if task_of(task)["field"] in needs["fields"] and asked and asked != classes:
        yield Problem(pointer, f"{name} needs labels, but the dataset has {asked} classes and the student {classes}")


def _learns_strangers(resolved: Mapping[str, Any], facts: Facts) -> bool:
    """Whether the student learns classes of other names than its teacher's, as far as both are named."""
    known = set(facts.teacher.class_names) if facts.teacher else set()
    own = (facts.dataset.findings or {}).get("class_names", ()) if facts.dataset else ()
    named = known and own and not all(map(str.isdecimal, own))
    learns = reads_labels(resolved["source"], resolved["objectives"], resolved["task"])
    return bool(named) and learns and known.isdisjoint(own)


def _check_training(resolved: Mapping[str, Any]) -> Iterator[Problem]:
    training = resolved["training"]
    if training["selection"] == "best" and not training["validation_fraction"]:
        yield Problem("/training/validation_fraction", "must be greater than 0 to choose the best weights by")
    if training["validation_fraction"] and not resolved["dataset"]:
        yield Problem("/training/validation_fraction", "holds back a part of the dataset, and there is none")
    elif training["validation_fraction"] and (_ignores_labels(resolved) or _synthesises(resolved)):
        words = f"holds back images to measure by, and the source {resolved['source']['name']!r} reads no real image's label"
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
    asked = outputs_asked(dataset, resolved["task"])
    if classes and asked and asked != classes:
        at = "/evaluation/dataset" if not own else "/student/classes"
        yield Problem(at, f"the dataset that measures the student has {asked} classes, and the student {classes}")


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
