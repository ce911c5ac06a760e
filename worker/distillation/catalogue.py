"""The catalogue: every method and network of the engine, as the plain data that the rest of the service reads.

`python -m worker.distillation.catalogue` writes models/spec/catalogue.json and docs/methods.md.
"""

import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worker.distillation import networks, registry
from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError
from worker.distillation.initial_weights.slices import fit_followed
from worker.distillation.introspection.channel_groups import Followed, follow
from worker.distillation.networks.family import Network
from worker.distillation.objective import Objective
from worker.distillation.parameters import schema
from worker.distillation.procedure import Procedure
from worker.distillation.source import Source
from worker.distillation.task import EVERY_TASK, Task

ROOT = Path(__file__).parents[2]
JSON_PATH, PAGE_PATH = ROOT / "models" / "spec" / "catalogue.json", ROOT / "docs" / "methods.md"


def catalogue() -> dict[str, Any]:
    """All methods by kind and name, all networks by name, and the patterns of names of the libraries' networks."""
    methods = {kind: {name: _method(kind, name) for name in registry.names(kind)} for kind in registry.BASES}
    slices = _slices()
    named = {name: _network(network) | {"slice_of": slices[name]} for name, network in networks.named().items()}
    patterns = [{"pattern": each.pattern, "description": each.description} for each in networks.patterns()]
    return _plain({**methods, "networks": named, "network_patterns": patterns})


def text() -> str:
    """The catalogue as JSON, the same bytes for the same methods."""
    return json.dumps(catalogue(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def first_sentence(described: type) -> str:
    """The first paragraph's first sentence of a class's docstring."""
    paragraph = " ".join((inspect.getdoc(described) or "").split("\n\n")[0].split())
    sentence, stop, _ = paragraph.partition(". ")
    return sentence + stop.strip()


def _method(kind: str, name: str) -> dict[str, Any]:
    method = registry.find(kind, name)
    entry = {
        "description": first_sentence(method),
        "paper": method.paper,
        "parameters": schema(method.Parameters),
    }
    if issubclass(method, Objective):
        entry |= _needs(method)
    if issubclass(method, Procedure):
        entry |= {name: getattr(method, name) for name in ("own_teacher", "cohort", "objective_defaults")} | _needs(
            method
        )
        entry["fills_when"] = [
            {"parameter": parameter, "value": value, "objectives": objectives}
            for (parameter, value), objectives in method.fills_when.items()
        ]
    if issubclass(method, Source):
        entry |= {
            "needs": asdict(method.needs),
            "provides": method.provides,
            "provides_when": [
                {"parameter": parameter, "value": value, "fields": fields}
                for (parameter, value), fields in method.provides_when.items()
            ],
            "samplers": method.samplers,
            "tasks": method.tasks,
            "synthesises": method.synthesises,
            "ignores_labels": method.ignores_labels,
            "divides": method.divides,
            "training_defaults": method.training_defaults,
            "sliced_training_defaults": method.sliced_training_defaults,
            "objective_defaults": method.objective_defaults,
        }
    if issubclass(method, Task):
        names = ("labels", "field", "labels_are_outputs", "least_outputs", "ground_truth", "objective_defaults")
        entry |= {name: getattr(method, name) for name in names}
        entry |= {"figure": method.figure, "higher_is_better": method.higher_is_better}
    return entry


def _needs(method: type[Objective] | type[Procedure]) -> dict[str, Any]:
    return {
        "needs": asdict(method.needs),
        "needs_when": [
            {"parameter": parameter, "value": value, "needs": asdict(needs)}
            for (parameter, value), needs in method.needs_when.items()
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
    """Of every named network the others that it can be a slice of, all with default options."""
    contract = InputContract(3, 64, 64, (0.0,) * 3, (1.0,) * 3)
    with torch.device("meta"):
        built = {name: networks.build(name, 10, contract) for name in networks.names()}
    states = {name: network.state_dict() for name, network in built.items()}
    found: dict[str, list[str]] = {}
    for name, network in built.items():
        followed = follow(network, contract.blank(torch.device("meta")))
        found[name] = [other for other in built if other != name and _fits(followed, states[name], states[other])]
    return found


def _fits(followed: Followed, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> bool:
    try:
        fit_followed(followed, student, teacher)
    except SpecError:
        return False
    return True


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def page(data: Mapping[str, Any]) -> str:
    """docs/methods.md: what the catalogue holds, for people."""
    lines = [
        "# Methods and networks",
        "",
        "Generated by `make catalogue` from the engine; edit the method's own file instead.",
    ]
    for kind in registry.BASES:
        lines += ["", f"## {kind.capitalize()}"]
        lines += ["", "None yet."] if not data[kind] else []
        for name, entry in sorted(data[kind].items()):
            lines += _section(name, entry)
    lines += ["", "## Networks"]
    for name, entry in sorted(data["networks"].items()):
        lines += _section(name, entry)
    lines += [""] + [
        f"* names that match `{each['pattern']}`: {each['description']}" for each in data["network_patterns"]
    ]
    return "\n".join(lines) + "\n"


def _section(name: str, entry: Mapping[str, Any]) -> Iterable[str]:
    papers = [f"Paper: {entry['paper']}."] if entry["paper"] else []
    yield from ("", f"### `{name}`", "", " ".join([entry["description"], *papers]))
    demands = _demands(entry)
    if demands:
        yield from ("", f"Needs: {demands}.")
    properties = entry["parameters"]["properties"]
    if properties:
        yield from ("", "| parameter | type | default | |", "|---|---|---|---|")
    for parameter, rule in properties.items():
        default = f"`{json.dumps(rule['default'])}`" if "default" in rule else "required"
        yield f"| `{parameter}` | {_type(rule)} | {default} | {_cell(rule.get('description', ''))} |"


def _demands(entry: Mapping[str, Any]) -> str:
    needs = entry.get("needs", {})
    words = [f"{key.replace('_', ' ')}" for key, value in needs.items() if value is True]
    words += [f"batch field `{name}`" for name in needs.get("fields", ())]
    words += [f"sampler `{needs['sampler']}`"] if needs.get("sampler") else []
    words += [f"at least {needs['minimum_classes']} classes"] if needs.get("minimum_classes", 2) > 2 else []
    tasks = tuple(needs.get("tasks") or entry.get("tasks") or EVERY_TASK)
    words += [_of_tasks(tasks)] if tasks != EVERY_TASK else []
    for case in entry.get("needs_when", ()):
        inner = _demands({"needs": case["needs"]})
        words.append(f"with `{case['parameter']}` = `{json.dumps(case['value'])}`: {inner}")
    return "; ".join(words)


def _of_tasks(tasks: Iterable[str]) -> str:
    return f"task {' or '.join(f'`{task}`' for task in tasks)}"


def _type(rule: Mapping[str, Any]) -> str:
    if "anyOf" in rule:
        return " or ".join(_type(inner) for inner in rule["anyOf"])
    if "enum" in rule:
        return ", ".join(f"`{value}`" for value in rule["enum"])
    if rule.get("$ref", "").startswith("#/files/"):
        return f"id of a file of the kind `{rule['$ref'].removeprefix('#/files/')}`"
    if "$ref" in rule:
        return {"#/objectives": "objective", "#/network": "network", "#/network_space": "networks"}[rule["$ref"]]
    if rule["type"] == "array" and "items" in rule:
        return f"list of {_type(rule['items'])}"
    if rule["type"] == "array":
        return f"({', '.join(_type(item) for item in rule['prefixItems'])})"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " ".join([rule["type"], *(f"{sign} {rule[key]:g}" for key, sign in signs.items() if key in rule)])


def _cell(words: str) -> str:
    return words.replace("|", "\\|")


def main() -> None:
    JSON_PATH.write_text(text(), encoding="utf-8")
    PAGE_PATH.write_text(page(json.loads(text())), encoding="utf-8")


if __name__ == "__main__":
    main()
