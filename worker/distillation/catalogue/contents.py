"""The catalogue's contents, as plain data."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, get_args

import torch
from torch import Tensor

from worker.distillation import networks, registry
from worker.distillation.budget.candidates import STEPS
from worker.distillation.budget.limits import Budget
from worker.distillation.catalogue.schema import schema
from worker.distillation.contract import InputContract
from worker.distillation.data.packed import Options as DatasetOptions
from worker.distillation.data.truth import Labels
from worker.distillation.errors import Fault, SpecError
from worker.distillation.export import DEFAULT_FORMATS, WRITERS
from worker.distillation.initial_weights.from_teacher import FROM_TEACHER
from worker.distillation.initial_weights.slices import fit_followed
from worker.distillation.introspection.channel_following import Followed, follow
from worker.distillation.limits import UploadLimits
from worker.distillation.networks.ensemble import Combination
from worker.distillation.networks.family import Network
from worker.distillation.networks.layer_kinds import KINDS as LAYER_KINDS
from worker.distillation.networks.narrowing import Likeness
from worker.distillation.objective import ObjectiveNeeds
from worker.distillation.parameters import FILE_KINDS, MOST_VALUES
from worker.distillation.procedure import Phase, ProcedureNeeds
from worker.distillation.process.stopwatch import WALL_SECONDS
from worker.distillation.source import SourceNeeds
from worker.distillation.trainer.objective_weight import ConstantWeight, WeightSchedule
from worker.distillation.training import DEFAULT_EPOCHS, Training
from worker.distillation.transform import ORDER

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "objectives": ("needs",),
    "procedures": ("needs", "own_teacher", "cohort", "objective_defaults", "fills"),
    "sources": (
        "needs", "provides", "samplers", "tasks", "synthesises", "ignores_labels", "calibrates", "divides", "training_defaults",
        "sliced_training_defaults", "objective_defaults",
    ),
    "transforms": ("structural", "encodes", "calibration_images", "averages"),
    "tasks": (
        "labels", "field", "labels_are_outputs", "least_outputs", "ground_truth", "objective_defaults", "source_defaults", "no_synthesis", "main_metric",
        "higher_is_better",
    ),
}  # fmt: skip
"""Attributes of each kind's methods that the service reads, in addition to their parameters; `when` lists
exceptions."""
PARTS: Mapping[str, type] = {
    "training": Training,
    "objective_weight": ConstantWeight,
    "weight_schedule": WeightSchedule,
    "ensemble": Combination,
    "input_contract": InputContract,
    "dataset_options": DatasetOptions,
    "student": Likeness,
    "budget": Budget,
}
"""The parts of a spec, or of an upload, that are not methods."""


def catalogue() -> dict[str, Any]:
    """All methods by kind and name, networks by name or pattern, the other parts of a spec, and the names and bounds
    that a spec may use."""
    methods = {kind: {name: _method(kind, name) for name in registry.names(kind)} for kind in registry.BASES}
    slices = _slices()
    named = {name: _network(network) | {"slice_of": slices[name]} for name, network in networks.named().items()}
    patterns = [
        {"pattern": each.pattern, "description": each.description, "parameters": schema(each.options_type)}
        for each in networks.patterns()
    ]
    parts = {name: {"description": inspect.getdoc(part), "parameters": schema(part)} for name, part in PARTS.items()}
    layers = {
        name: {"description": inspect.getdoc(kind), "parameters": schema(kind)} for name, kind in LAYER_KINDS.items()
    }
    networks_ = {"networks": named, "network_patterns": patterns, "layers": layers}
    return _plain({**methods, **networks_, "parts": parts, "choices": _choices(), "limits": _limits()})


def text() -> str:
    """The catalogue as JSON; the same methods give the same bytes."""
    return json.dumps(catalogue(), indent=2, ensure_ascii=False) + "\n"


def first_sentence(described: type) -> str:
    """The first sentence of a class's docstring."""
    paragraph = " ".join((inspect.getdoc(described) or "").split("\n\n")[0].split())
    sentence, stop, _ = paragraph.partition(". ")
    return sentence + stop.strip()


def _choices() -> dict[str, Any]:
    """Values that a spec or an event may use and that no parameter's own schema lists."""
    return {
        "default_export_formats": list(DEFAULT_FORMATS),
        "export_formats": list(WRITERS),
        "faults": get_args(Fault),
        "file_kinds": {kind: first_sentence(file) for kind, file in FILE_KINDS.items()},
        "label_kinds": get_args(Labels),
        "phases": get_args(Phase),
        "order_of_transforms": ORDER,
        "weights_from_teacher": list(FROM_TEACHER),
    }


def _limits() -> dict[str, int]:
    return {
        "classes": UploadLimits.classes,
        "default_epochs": DEFAULT_EPOCHS,
        "steps_of_a_budget": STEPS,
        "values_of_an_option": MOST_VALUES,
        "wall_seconds_of_processor_second": WALL_SECONDS,
    }


def _method(kind: str, name: str) -> dict[str, Any]:
    method = registry.find(kind, name)
    return {
        "description": first_sentence(method),
        "paper": method.paper,
        "parameters": schema(method.Parameters),
        **{attribute: getattr(method, attribute) for attribute in ATTRIBUTES[kind]},
        "when": [
            {"parameter": parameter, "value": value, "then": then} for (parameter, value), then in method.when.items()
        ],
    }


def _network(network: Network) -> dict[str, Any]:
    return {
        "description": network.description,
        "paper": network.paper,
        "parameters": schema(network.options_type),
        "widths": network.widths,
    }


def _slices() -> dict[str, list[str]]:
    """For every named network, the other networks of which it can be a slice, all with default options."""
    contract = InputContract(3, 64, 64, (0.0,) * 3, (1.0,) * 3)
    with torch.device("meta"):
        built = {name: networks.build(name, 10, contract) for name in networks.names()}
    states = {name: network.state_dict() for name, network in built.items()}
    found: dict[str, list[str]] = {}
    for name, network in built.items():
        followed: Followed = follow(network, contract.blank(torch.device("meta")))
        found[name] = [other for other in built if other != name and _fits(followed, states[name], states[other])]
    return found


def _fits(followed: Followed, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> bool:
    try:
        fit_followed(followed, student, teacher)
    except SpecError:
        return False
    return True


def _plain(value: Any) -> Any:
    if isinstance(value, (ObjectiveNeeds, ProcedureNeeds, SourceNeeds)):
        derived = {"one_image": value.one_image} if isinstance(value, ObjectiveNeeds) else {}
        return _plain(asdict(value) | derived)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
