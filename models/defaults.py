"""Writing out what a job's spec leaves unsaid."""

import copy
from collections.abc import Mapping
from typing import Any

from models import webhook
from models.catalogue import known, nested_networks, nested_objectives
from models.facts import Facts
from models.training import EPOCHS, OPTIMIZER_DEFAULTS, TrainingSpec

TASK = "classification"


def resolved(user: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """`user` (a spec as its user wrote it, already validated) with every default; see `models.spec.resolve`."""
    source = method("sources", user.get("source") or {"name": "dataset" if user.get("dataset") else "dafl"})
    student = _student(user["student"], facts)
    return {
        "name": user.get("name") or _name(student, facts),
        "task": user.get("task", TASK),
        "labels": dict(user.get("labels") or {}),
        "priority": user.get("priority", 0),
        "resources": _resources(user.get("resources") or {}),
        "teacher": user.get("teacher"),
        "student": student,
        "dataset": user.get("dataset"),
        "source": source,
        "objectives": [
            method("objectives", one) for one in user.get("objectives") or _objectives(user, source["name"])
        ],
        "procedure": method("procedures", user.get("procedure") or {"name": "direct"}),
        "transforms": [method("transforms", one) for one in user.get("transforms") or ()],
        "training": training(user.get("training") or {}, known("sources")[source["name"]]["training_defaults"]),
        "evaluation": _evaluation(user, facts),
        "exports": list(user.get("exports") or ("safetensors", "onnx")),
        "webhook": webhook.resolved(user.get("webhook")),
    }


def method(kind: str, written: Mapping[str, Any]) -> dict[str, Any]:
    """A method with all its parameters; objectives within it have all of theirs too."""
    parameters = known(kind)[written["name"]]["parameters"].get("properties", {})
    full: dict[str, Any] = {"name": written["name"]}
    if kind == "objectives":
        full["weight"] = _weight(written.get("weight", 1.0))
    for name, schema in parameters.items():
        full[name] = copy.deepcopy(written[name] if name in written else schema["default"])
    for name in nested_objectives(kind, written["name"]):
        if full[name] is not None:
            full[name] = [method("objectives", one) for one in full[name]]
    for name in nested_networks(kind, written["name"]):
        given = full[name]
        full[name] = [_network(one) for one in given] if isinstance(given, list) else given and _network(given)
    return full


def _network(written: Mapping[str, Any]) -> dict[str, Any]:
    """A network within a method, with all its options."""
    return {"network": written["network"], "options": network_values(written["network"], written.get("options") or {})}


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


def _student(user: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    teacher, dataset = facts.teacher, facts.dataset
    classes = teacher.classes if teacher else dataset.classes if dataset else None
    return {
        "network": user["network"],
        "options": network_values(user["network"], user.get("options") or {}),
        "initial_weights": user.get("initial_weights"),
        "classes": user.get("classes") or classes,
        "input": user.get("input") or (dict(teacher.input) if teacher else None),
    }


def network_values(network: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A network's options, all written out."""
    properties = (known("networks").get(network) or {}).get("parameters", {}).get("properties", {})
    return {
        name: copy.deepcopy(schema["default"]) for name, schema in properties.items() if "default" in schema
    } | dict(options)


def _objectives(user: Mapping[str, Any], source: str) -> list[dict[str, Any]]:
    entry = known("sources")[source]
    procedure = known("procedures")[(user.get("procedure") or {"name": "direct"})["name"]]
    if defaults := procedure.get("objective_defaults") or entry["objective_defaults"]:
        return list(defaults)
    taught = user.get("teacher") or procedure.get("own_teacher")
    labels = {"name": "cross_entropy", "weight": 0.1 if taught else 1.0}
    teacher = {"name": "kd", "weight": 0.9 if "label" in entry["provides"] else 1.0, "temperature": 4.0}
    chosen = [labels] if "label" in entry["provides"] else []
    return [*chosen, teacher] if taught or not chosen else chosen


def _weight(weight: Any) -> Any:
    return {"end": 0.0, "until": 1.0} | dict(weight) if isinstance(weight, Mapping) else weight


def _evaluation(user: Mapping[str, Any], facts: Facts) -> dict[str, Any] | None:
    given = user.get("evaluation") or ({"dataset": user["dataset"]} if user.get("dataset") else None)
    if given is None:
        return None
    known_of = facts.evaluation or (facts.dataset if given["dataset"] == user.get("dataset") else None)
    split = given.get("split")
    if split is None and known_of is not None and known_of.inspected:
        split = "test" if "test" in known_of.splits else "train"
    return {"dataset": given["dataset"], "split": split}


def _name(student: Mapping[str, Any], facts: Facts) -> str:
    return f"{student['network']} from {facts.teacher.network}" if facts.teacher else str(student["network"])
