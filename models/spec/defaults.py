"""Writing out what a job's spec leaves unsaid."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from models.spec import initial_weights, webhook_target
from models.spec.catalogue import choices, effective, known, nested_networks, nested_objectives, part
from models.spec.facts import Facts
from models.spec.source_choice import choose
from models.spec.task_checks import TASK, default_objectives, outputs_asked, reads_truth, task_of
from models.spec.teacher_reads import are_two
from models.spec.teacher_spec import OF_THE_STAGE, is_trained_first
from models.spec.training_spec import EPOCHS, OPTIMIZER_DEFAULTS, TrainingSpec


def resolved(user: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """`user` (a spec as its user wrote it, already validated) with every default; see `models.spec.job_spec.resolve`."""
    task = user.get("task", TASK)
    source, why = _source(user, facts)
    objectives = [method("objectives", one) for one in user.get("objectives") or _objectives(user, source)]
    student = _student(user["student"], facts, reads_labels(source, objectives, task), are_two(source), task)
    begun = _initial_weights(student, source, facts)
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
        "procedure": method("procedures", user.get("procedure") or {"name": "direct"}),
        "transforms": [method("transforms", one) for one in user.get("transforms") or ()],
        "training": trained,
        "evaluation": _evaluation(user, facts, source),
        "exports": list(user.get("exports") or choices("export_formats")),
        "webhook": webhook_target.resolved(user.get("webhook")),
        "reasons": dict(user.get("reasons") or {}) | why | begun,
    }


def method(kind: str, written: Mapping[str, Any]) -> dict[str, Any]:
    """A method with all its parameters; objectives within it have all of theirs too."""
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
    """The batch fields that a source gives with these parameters, beside the image."""
    return list(effective("sources", source, "provides"))


def _source(user: Mapping[str, Any], facts: Facts) -> tuple[dict[str, Any], dict[str, str]]:
    """The source, and why it was chosen where the user left that open."""
    if user.get("source"):
        return method("sources", user["source"]), {}
    name, why = choose(user, facts)
    return method("sources", {"name": name}), {"/source": why}


def _network(written: Mapping[str, Any]) -> dict[str, Any]:
    """A network within a method, with all its options."""
    return {"network": written["network"], "options": network_values(written["network"], written.get("options") or {})}


def _training_defaults(source: Mapping[str, Any], student: Mapping[str, Any]) -> dict[str, Any]:
    """What the source says of training, by what the student begins with."""
    entry = known("sources")[source["name"]]
    sliced = student["initial_weights"] in initial_weights.OF_THE_TEACHER
    return {**entry["training_defaults"], **(entry["sliced_training_defaults"] if sliced else {})}


def training(user: Mapping[str, Any], source_defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The training's values: the user's, over the source's, over the optimiser's, over the general ones.

    What a source says of its optimiser's figures holds only for that optimiser, and of a length only where the user
    says none.
    """
    said = {name: value for name, value in user.items() if value is not None}
    beneath = dict(source_defaults)
    if said.get("optimizer", beneath.get("optimizer")) != beneath.get("optimizer"):
        for name in ("learning_rate", "weight_decay", "momentum", "nesterov"):
            beneath.pop(name, None)
    if "epochs" in said or "steps" in said:
        beneath.pop("epochs", None)
        beneath.pop("steps", None)
    general = TrainingSpec().model_dump(mode="json")
    optimizer = OPTIMIZER_DEFAULTS[{**general, **beneath, **said}["optimizer"]]
    full = {**general, **optimizer, **beneath, **said}
    if full["epochs"] is None and full["steps"] is None:
        full["epochs"] = EPOCHS
    return full


def _resources(user: Mapping[str, Any]) -> dict[str, Any]:
    return {"gpus": user.get("gpus") or 1, "gpu": user.get("gpu"), "gpu_memory_gb": user.get("gpu_memory_gb")}


def _teacher(written: Any, objectives: Sequence[Mapping[str, Any]], job: Mapping[str, Any]) -> Any:
    """The teacher: an id as it is, an ensemble with all its parameters, or a network with its own part of the training."""
    if is_trained_first(written):
        own = training(written.get("training") or {}, {name: job[name] for name in OF_THE_STAGE})
        return _network(written) | {"training": {name: own[name] for name in OF_THE_STAGE}}
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
    own = "label" in provided(source) and not known("sources")[source["name"]].get("ignores_labels")
    return own and reads_truth(objectives, task)


def _student(
    user: Mapping[str, Any], facts: Facts, learns_labels: bool, reads_alone: bool, task: str
) -> dict[str, Any]:
    """The student. Its classes are those of the labels that it learns, which are not the teacher's in a transfer; what it
    reads is the teacher's, unless it `reads_alone`."""
    teacher, asked = facts.teacher, outputs_asked(facts.dataset, task)
    classes = teacher.classes if teacher else asked
    if learns_labels and asked and asked >= task_of(task)["least_outputs"]:
        classes = asked
    return {
        "network": user["network"],
        "options": network_values(user["network"], user.get("options") or {}),
        "initial_weights": user.get("initial_weights"),
        "classes": user.get("classes") or classes,
        "input": user.get("input") or (dict(teacher.input) if teacher and not reads_alone else None),
    }


def _initial_weights(student: dict[str, Any], source: Mapping[str, Any], facts: Facts) -> dict[str, str]:
    """Say in the student what it begins with, where its user did not; gives why."""
    if student["initial_weights"]:
        return {}
    student["initial_weights"], why = initial_weights.choose(student, source["name"], facts)
    return {"/student/initial_weights": why} if why else {}


def network_values(network: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A network's options, all written out."""
    properties = (known("networks").get(network) or {}).get("parameters", {}).get("properties", {})
    return {
        name: copy.deepcopy(schema["default"]) for name, schema in properties.items() if "default" in schema
    } | dict(options)


def _objectives(user: Mapping[str, Any], source: Mapping[str, Any]) -> list[dict[str, Any]]:
    entry = known("sources")[source["name"]]
    procedure = known("procedures")[(user.get("procedure") or {"name": "direct"})["name"]]
    for_classes = entry["objective_defaults"] if user.get("task", TASK) == TASK else ()
    if defaults := procedure.get("objective_defaults") or for_classes:
        return list(defaults)
    taught = bool(user.get("teacher") or procedure.get("own_teacher"))
    return default_objectives(user.get("task", TASK), provided(source), taught)


def _defaults_of(name: str) -> dict[str, Any]:
    """The defaults of a part of a spec."""
    properties = part(name)["parameters"]["properties"]
    return {key: schema["default"] for key, schema in properties.items() if "default" in schema}


def _weight(weight: Any) -> Any:
    return _defaults_of("weight_schedule") | dict(weight) if isinstance(weight, Mapping) else weight


def _evaluation(user: Mapping[str, Any], facts: Facts, source: Mapping[str, Any]) -> dict[str, Any] | None:
    own = user.get("dataset") and not known("sources")[source["name"]].get("ignores_labels")
    given = user.get("evaluation") or ({"dataset": user["dataset"]} if own else None)
    if given is None:
        return None
    known_of = facts.evaluation or (facts.dataset if given["dataset"] == user.get("dataset") else None)
    split = given.get("split")
    if split is None and known_of is not None and known_of.inspected:
        split = "test" if "test" in known_of.splits else "train"
    return {"dataset": given["dataset"], "split": split}


def _name(student: Mapping[str, Any], facts: Facts) -> str:
    if facts.others:
        return f"{student['network']} from {1 + len(facts.others)} teachers"
    return f"{student['network']} from {facts.teacher.network}" if facts.teacher else str(student["network"])
