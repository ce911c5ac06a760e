"""The defaults of a job's spec: resolution writes out every value that the user omits."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from models.spec import initial_weights, webhook_target
from models.spec.catalogue import choices, effective, known, nested_networks, nested_objectives, network_entry, part
from models.spec.compression import resolved_budget
from models.spec.facts import Facts
from models.spec.source_choice import choose, of_outputs_alone, trials
from models.spec.task_checks import TASK, default_objectives, outputs_asked, reads_truth, task_of
from models.spec.teacher_reads import has_two_images
from models.spec.teacher_spec import OF_THE_STAGE, is_trained_first
from models.spec.training_spec import EPOCHS, OPTIMIZER_DEFAULTS, TrainingSpec


def resolved(user: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """`user` (a validated spec, as sent) with every default; see `models.spec.job_spec.resolve`."""
    task = user.get("task", TASK)
    source, why = _source(user, facts)
    asked, why_objectives = _objectives(user, source, facts)
    objectives = [method("objectives", one) for one in asked]
    student = _student(user["student"], facts, reads_labels(source, objectives, task), has_two_images(source), task)
    procedure, why_procedure = _procedure(user, source, bool(why))
    why_weights = _initial_weights(student, source, procedure["name"], facts)
    trained = training(user.get("training") or {}, _training_defaults(source, student))
    return {
        "name": user.get("name") or _name(student, facts),
        "task": task,
        "labels": dict(user.get("labels") or {}),
        "priority": user.get("priority", 0),
        "resources": _resources(user.get("resources") or {}),
        "teacher": _teacher(user.get("teacher"), objectives, trained),
        "student": student,
        "dataset": user.get("dataset"),
        "contract": user.get("contract", "check"),
        "source": source,
        "objectives": objectives,
        "procedure": procedure,
        "transforms": [method("transforms", one) for one in user.get("transforms") or ()],
        "training": trained,
        "evaluation": _evaluation(user, facts, source),
        "exports": list(user.get("exports") or choices("default_export_formats")),
        "webhook": webhook_target.resolved(user.get("webhook")),
        "reasons": dict(user.get("reasons") or {}) | why | why_objectives | why_procedure | why_weights,
    }


def method(kind: str, written: Mapping[str, Any]) -> dict[str, Any]:
    """A method with all its parameters, including those of the objectives and networks within it."""
    parameters = known(kind)[written["name"]]["parameters"].get("properties", {})
    full: dict[str, Any] = {"name": written["name"]}
    if kind == "objectives":
        full["weight"] = _weight(written.get("weight", _defaults_of("objective_weight")["weight"]))
    for name, schema in parameters.items():
        full[name] = copy.deepcopy(written[name] if name in written else schema["default"])
    for name in nested_objectives(kind, written["name"]):
        if full[name] is not None:
            full[name] = [method("objectives", one) for one in full[name]]
    for name in nested_networks(kind, written["name"]):
        given = full[name]
        full[name] = [_network(one) for one in given] if isinstance(given, list) else given and _network(given)
    return full


def provided(source: Mapping[str, Any]) -> list[str]:
    """The batch fields that a source provides with these parameters, besides the image."""
    return list(effective("sources", source, "provides"))


def _source(user: Mapping[str, Any], facts: Facts) -> tuple[dict[str, Any], dict[str, str]]:
    """The source, and the reason for it if the service chose it."""
    if user.get("source"):
        return method("sources", _for_task(user["source"], user)), {}
    name, why = choose(user, facts)
    return method("sources", _for_task({"name": name}, user)), {"/source": why}


def _for_task(source: Mapping[str, Any], user: Mapping[str, Any]) -> dict[str, Any]:
    """The source with the task's own defaults of its parameters."""
    parameters = known("sources")[source["name"]]["parameters"].get("properties", {})
    own = task_of(user.get("task", TASK))["source_defaults"]
    return {name: value for name, value in own.items() if name in parameters} | dict(source)


def _procedure(
    user: Mapping[str, Any], source: Mapping[str, Any], chosen: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """The procedure, and the reason for it if it follows from the source that the service has `chosen`."""
    if chosen and (found := trials(source["name"], user)):
        return method("procedures", found[0]), {"/procedure": found[1]}
    return method("procedures", user.get("procedure") or {"name": "direct"}), {}


def _network(written: Mapping[str, Any]) -> dict[str, Any]:
    """A network within a method, with all its options."""
    return {"network": written["network"], "options": network_values(written["network"], written.get("options") or {})}


def _training_defaults(source: Mapping[str, Any], student: Mapping[str, Any]) -> dict[str, Any]:
    """The source's training defaults, which depend on the student's initial weights."""
    entry = known("sources")[source["name"]]
    sliced = student["initial_weights"] in initial_weights.OF_THE_TEACHER
    return {**entry["training_defaults"], **(entry["sliced_training_defaults"] if sliced else {})}


def training(user: Mapping[str, Any], source_defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the training: the user's, else the source's, else the optimiser's, else the general ones.

    A source's learning rate, weight decay and momentum apply only to the source's own optimiser. Its length applies
    only if the user sets neither epochs nor steps.
    """
    given = {name: value for name, value in user.items() if value is not None}
    of_source = dict(source_defaults)
    if given.get("optimizer", of_source.get("optimizer")) != of_source.get("optimizer"):
        for name in ("learning_rate", "weight_decay", "momentum", "nesterov", "relative_rates"):
            of_source.pop(name, None)
    if "epochs" in given or "steps" in given:
        of_source.pop("epochs", None)
        of_source.pop("steps", None)
    general = TrainingSpec().model_dump(mode="json")
    optimizer = OPTIMIZER_DEFAULTS[{**general, **of_source, **given}["optimizer"]]
    full = {**general, **optimizer, **of_source, **given}
    if full["epochs"] is None and full["steps"] is None:
        full["epochs"] = EPOCHS
    return full


def _resources(user: Mapping[str, Any]) -> dict[str, Any]:
    return {"gpus": user.get("gpus") or 1, "gpu": user.get("gpu"), "gpu_memory_gb": user.get("gpu_memory_gb")}


def _teacher(written: Any, objectives: Sequence[Mapping[str, Any]], job: Mapping[str, Any]) -> Any:
    """The teacher: an id unchanged, an ensemble with all its parameters, or a network with its own training values."""
    if is_trained_first(written):
        own = training(written.get("training") or {}, {name: job[name] for name in OF_THE_STAGE})
        begins = {"initial_weights": written.get("initial_weights") or initial_weights.RANDOM}
        return _network(written) | begins | {"training": {name: own[name] for name in OF_THE_STAGE}}
    if written is None or isinstance(written, str):
        return written
    given = dict(written) if isinstance(written, Mapping) else {"members": list(written)}
    whole = _defaults_of("ensemble") | given
    if whole["combine"] == "probabilities" and whole["temperature"] is None:
        temperatures = [one["temperature"] for one in objectives if isinstance(one.get("temperature"), int | float)]
        whole["temperature"] = float(temperatures[0]) if temperatures else 1.0
    return whole


def reads_labels(source: Mapping[str, Any], objectives: Sequence[Mapping[str, Any]], task: str) -> bool:
    """Whether the student learns the dataset's labels."""
    own = task_of(task)["field"] in provided(source) and not known("sources")[source["name"]].get("ignores_labels")
    return own and reads_truth(objectives, task)


def _student(user: Mapping[str, Any], facts: Facts, learns_labels: bool, own_image: bool, task: str) -> dict[str, Any]:
    """The student. By default its classes are the dataset's if it learns labels, else the teacher's; its input is the
    teacher's, unless it reads its `own_image`."""
    teacher, asked = facts.teacher, outputs_asked(facts.dataset, task)
    classes = teacher.classes if teacher else asked
    if learns_labels and asked and asked >= task_of(task)["least_outputs"]:
        classes = asked
    named = user.get("network")
    return {
        "network": named,
        "options": network_values(named, user.get("options") or {}) if named else {},
        **({} if named else _likeness(user)),
        **resolved_budget(user),
        **({"program": user["program"]} if user.get("program") else {}),
        "initial_weights": user.get("initial_weights"),
        "classes": user.get("classes") or classes,
        "input": user.get("input") or (dict(teacher.input) if teacher and not own_image else None),
    }


def _likeness(user: Mapping[str, Any]) -> dict[str, Any]:
    """What a student has of its teacher's structure."""
    width = user.get("width")
    default = 1.0 if user.get("budget") else _defaults_of("student")["width"]
    return {"like": user.get("like") or "teacher", "width": default if width is None else width}


def _initial_weights(
    student: dict[str, Any], source: Mapping[str, Any], procedure: str, facts: Facts
) -> dict[str, str]:
    """Set the student's initial weights if the user did not; returns the reason by its place in the spec."""
    if student["initial_weights"]:
        return {}
    student["initial_weights"], why = initial_weights.choose(student, source, procedure, facts)
    return {"/student/initial_weights": why} if why else {}


def network_values(network: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A network's options, with defaults."""
    properties = network_entry(network).get("parameters", {}).get("properties", {})
    return {
        name: copy.deepcopy(schema["default"]) for name, schema in properties.items() if "default" in schema
    } | dict(options)


def _objectives(
    user: Mapping[str, Any], source: Mapping[str, Any], facts: Facts
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The objectives, and the reason for them if the teacher's findings decided."""
    if user.get("objectives"):
        return list(user["objectives"]), {}
    entry = known("sources")[source["name"]]
    procedure = method("procedures", user.get("procedure") or {"name": "direct"})
    for_classes = entry["objective_defaults"] if user.get("task", TASK) == TASK else ()
    if of_procedure := effective("procedures", procedure, "objective_defaults"):
        return list(of_procedure), {}
    if for_classes:
        return of_outputs_alone(for_classes, facts)
    taught = bool(user.get("teacher") or known("procedures")[procedure["name"]]["own_teacher"])
    return default_objectives(user.get("task", TASK), provided(source), taught), {}


def _defaults_of(name: str) -> dict[str, Any]:
    """The defaults of a part of a spec."""
    properties = part(name)["parameters"]["properties"]
    return {key: schema["default"] for key, schema in properties.items() if "default" in schema}


def _weight(weight: Any) -> Any:
    return _defaults_of("weight_schedule") | dict(weight) if isinstance(weight, Mapping) else weight


def _evaluation(user: Mapping[str, Any], facts: Facts, source: Mapping[str, Any]) -> dict[str, Any] | None:
    labelled = facts.dataset is None or facts.dataset.labels != "none"
    own = user.get("dataset") and labelled and not known("sources")[source["name"]].get("ignores_labels")
    given = user.get("evaluation") or ({"dataset": user["dataset"]} if own else None)
    if given is None:
        return None
    known_of = facts.evaluation or (facts.dataset if given["dataset"] == user.get("dataset") else None)
    split = given.get("split")
    if split is None and known_of is not None and known_of.inspected:
        split = "test" if "test" in known_of.splits else "train"
    return {"dataset": given["dataset"], "split": split}


def _name(student: Mapping[str, Any], facts: Facts) -> str:
    named = student["network"]
    if named is None:
        named = "within a budget" if student.get("budget") else f"{student['width']:g} of the teacher"
    if facts.others:
        return f"{named} from {1 + len(facts.others)} teachers"
    return f"{named} from {facts.teacher.network}" if facts.teacher else str(named)
