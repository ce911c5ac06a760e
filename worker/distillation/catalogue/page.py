"""The catalogue as a page of the documentation."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from worker.distillation import registry
from worker.distillation.task import EVERY_TASK

NEEDS = {
    "teacher": "a teacher",
    "logits": "the same outputs in student and teacher",
    "input_gradient": "gradients with respect to the image",
    "one_image": "the same image for student and teacher",
    "prepass": "a pass over the training set before the first step",
    "batch_global": "the whole batch on every device",
    "peers": "other members of a cohort",
    "mirrored": "the student's outputs for mirrored images",
    "held_out_images": "held-out images",
    "dataset": "a dataset",
    "teacher_gradient": "gradients through the teacher",
    "batch_norm": "BatchNorm layers in the teacher",
}
"""Words for the needs that are true or false."""
REFERENCES = {
    "#/objectives": "objective",
    "#/network": "network",
    "#/network_space": "networks",
    "#/layer": "[layer](#layers)",
}
"""What a parameter is whose schema is a reference."""


def page(data: Mapping[str, Any]) -> str:
    """The text of docs/methods.md."""
    lines = [
        "# Methods and networks",
        "",
        "`make catalogue` generates this page from the engine. To change it, edit the method's own file.",
    ]
    for kind in registry.BASES:
        lines += ["", f"## {kind.capitalize()}"]
        lines += ["", "None yet."] if not data[kind] else []
        for name, entry in sorted(data[kind].items()):
            lines += _section(name, entry)
    lines += ["", "## Other parts of a spec"]
    for name, entry in data["parts"].items():
        lines += _section(name, entry)
    lines += ["", "## Networks"]
    for name, entry in sorted(data["networks"].items()):
        lines += _section(name, entry)
    lines += [""] + [
        f"* names that match `{each['pattern']}`: {each['description']}" for each in data["network_patterns"]
    ]
    lines += ["", "## Layers", "", "What a network described layer by layer (`layers`) may have."]
    for name, entry in data["layers"].items():
        lines += _section(name, entry)
    return "\n".join(lines) + "\n"


def _section(name: str, entry: Mapping[str, Any]) -> Iterable[str]:
    papers = [f"Paper: {entry['paper']}."] if entry.get("paper") else []
    yield from ("", f"### `{name}`", "", " ".join([entry["description"], *papers]))
    needs = _needs(entry)
    if needs:
        yield from ("", f"Needs: {needs}.")
    properties = entry["parameters"]["properties"]
    if properties:
        yield from ("", "| parameter | type | default | description |", "|---|---|---|---|")
    for parameter, rule in properties.items():
        default = f"`{json.dumps(rule['default'])}`" if "default" in rule else "required"
        yield f"| `{parameter}` | {_type(rule)} | {default} | {_cell(rule.get('description', ''))} |"


def _needs(entry: Mapping[str, Any]) -> str:
    needs = entry.get("needs", {})
    words = [NEEDS.get(key, key.replace("_", " ")) for key, value in needs.items() if value is True]
    words += [f"batch field `{name}`" for name in needs.get("fields", ())]
    words += [f"sampler `{needs['sampler']}`"] if needs.get("sampler") else []
    words += [f"at least {needs['minimum_classes']} classes"] if needs.get("minimum_classes", 2) > 2 else []
    tasks = tuple(needs.get("tasks") or entry.get("tasks") or EVERY_TASK)
    words += [_of_tasks(tasks)] if tasks != EVERY_TASK else []
    for case in entry.get("when", ()):
        if "needs" in case["then"]:
            inner = _needs({"needs": case["then"]["needs"]})
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
        return REFERENCES[rule["$ref"]]
    if rule["type"] == "array" and "items" in rule:
        return f"list of {_type(rule['items'])}"
    if rule["type"] == "array":
        return f"({', '.join(_type(item) for item in rule['prefixItems'])})"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " ".join([rule["type"], *(f"{sign} {_number(rule[key])}" for key, sign in signs.items() if key in rule)])


def _number(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _cell(words: str) -> str:
    return words.replace("|", "\\|")
