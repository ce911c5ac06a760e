"""The form of a new job: its fields by method, and specs from the fields of a form."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from api.dashboard.schema_fields import Field, fields, typed_values, value_of
from api.dashboard.visitors import Form
from models.spec.catalogue import known, part

ROWS = {"objectives": 6, "transforms": 4}
"""Lists of methods, and how many of each the form has."""
FURTHER = "further"
"""Name of the field for the fields of a spec that the form does not have."""
METHODS = {"source": "sources", "procedure": "procedures"}
PLAIN = ("name", "task", "teacher", "dataset")
BUDGET = "/student/budget"
SEVERAL = "[]"
"""End of the names of checkboxes whose values are a list together."""


def method_fields(kind: str, name: str, at: str) -> list[Field]:
    """The fields of a method's parameters; none for a method that does not exist."""
    found = known(kind).get(name) if name else None
    return fields(found["parameters"], at) if found else []


def training_fields() -> list[Field]:
    """The fields of the training."""
    return fields(part("training")["parameters"], "/training")


def budget_fields() -> list[Field]:
    """The fields of a student's budget."""
    return fields(part("budget")["parameters"], BUDGET)


@dataclass
class Written:
    """What a form says: the spec, the rows of the form of each list of methods, and what could not be read."""

    spec: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in ROWS})
    problems: list[tuple[str, str]] = field(default_factory=list)

    def place_of(self, pointer: str) -> str:
        """The pointer with the row of the form instead of the place in the list."""
        found = re.match(r"/(\w+)/(\d+)(.*)", pointer)
        rows = self.rows.get(found[1], []) if found else []
        if found is None or int(found[2]) >= len(rows):
            return pointer
        return f"/{found[1]}/{rows[int(found[2])]}{found[3]}"


def sent_texts(form: Form) -> dict[str, str]:
    """The texts of a form's fields, as `texts_of` gives them: the chosen values of checkboxes are a list in JSON."""
    texts = {name: text for name, text in form.items() if name.startswith("/") or name == FURTHER}
    for name in [name for name in texts if name.endswith(SEVERAL)]:
        del texts[name]
        texts[name.removesuffix(SEVERAL)] = json.dumps([value for other, value in form.pairs if other == name])
    return texts


def spec_of(form: Form) -> Written:
    """The spec that a form describes. Empty fields are left out, so that their defaults count."""
    written = Written()
    texts = {name: text.strip() for name, text in sent_texts(form).items() if name.startswith("/") and text.strip()}
    spec = written.spec
    for name in PLAIN:
        if f"/{name}" in texts:
            spec[name] = texts[f"/{name}"]
    if texts.get("/student/network") == "like":
        spec["student"] = {"like": "teacher"} | _typed({"width": {"number"}}, texts, "/student")
    elif "/student/network" in texts:
        spec["student"] = {"network": texts["/student/network"]}
        spec["student"] |= _typed_by(known("networks"), texts["/student/network"], texts, "/student/options", "options")
    if budget := typed_values(part("budget")["parameters"], texts, BUDGET):
        spec["student"] = spec.get("student", {}) | {"budget": budget}
    for name, kind in METHODS.items():
        chosen = texts.get(f"/{name}/name", "")
        if chosen:
            spec[name] = {"name": chosen} | _typed_by(known(kind), chosen, texts, f"/{name}")
    training = typed_values(part("training")["parameters"], texts, "/training")
    spec |= {"training": training} if training else {}
    for name in ROWS:
        _add_rows(name, texts, written)
    _add_further(form.get(FURTHER, ""), written)
    return written


def _add_rows(name: str, texts: Mapping[str, str], written: Written) -> None:
    for row in range(ROWS[name]):
        at = f"/{name}/{row}"
        if not (chosen := texts.get(f"{at}/name", "")):
            continue
        weight = _typed({"weight": {"number", "object"}}, texts, at) if name == "objectives" else {}
        written.spec.setdefault(name, []).append({"name": chosen} | weight | _typed_by(known(name), chosen, texts, at))
        written.rows[name].append(row)


def _add_further(text: str, written: Written) -> None:
    if not text.strip():
        return
    try:
        more = json.loads(text)
    except ValueError as error:
        written.problems.append((FURTHER, f"is not JSON: {error}"))
        return
    if not isinstance(more, dict):
        written.problems.append((FURTHER, "must be a JSON object"))
        return
    for name, value in more.items():
        known_value = written.spec.get(name)
        both = isinstance(value, dict) and isinstance(known_value, dict)
        written.spec[name] = value | known_value if both else value


def _typed_by(
    methods: Mapping[str, Any], name: str, texts: Mapping[str, str], at: str, into: str = ""
) -> dict[str, Any]:
    found = methods.get(name)
    values = typed_values(found["parameters"], texts, at) if found else {}
    return ({into: values} if values else {}) if into else values


def _typed(types: Mapping[str, set[str]], texts: Mapping[str, str], at: str) -> dict[str, Any]:
    return {name: value_of(texts[f"{at}/{name}"], kinds) for name, kinds in types.items() if f"{at}/{name}" in texts}


def texts_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a form's fields that describe a spec; what the form has no field for is in `further`."""
    texts: dict[str, str] = {}
    rest = dict(spec)
    for name in PLAIN:
        if isinstance(rest.get(name), str):
            texts[f"/{name}"] = rest.pop(name)
    _put_student(rest, texts)
    for name, kind in METHODS.items():
        if isinstance(rest.get(name), dict) and rest[name].get("name") in known(kind):
            _put(rest.pop(name), f"/{name}", texts)
    if isinstance(rest.get("training"), dict):
        _put(rest.pop("training"), "/training", texts)
    for name, most in ROWS.items():
        given = rest.get(name)
        if isinstance(given, list) and len(given) <= most and all(isinstance(one, dict) for one in given):
            for row, one in enumerate(rest.pop(name)):
                _put(one, f"/{name}/{row}", texts)
    rest = {name: value for name, value in rest.items() if value not in (None, {}, [])}
    if rest:
        texts[FURTHER] = json.dumps(rest, indent=2)
    return texts


def _put_student(rest: dict[str, Any], texts: dict[str, str]) -> None:
    student = rest.get("student")
    if not isinstance(student, dict) or set(student) - {"network", "options", "like", "width", "budget"}:
        return
    budget = student.get("budget") or {}
    if set(budget) - set(part("budget")["parameters"]["properties"]):
        return
    if student.get("like"):
        texts["/student/network"] = "like"
        texts |= {"/student/width": _text(student["width"])} if student.get("width") is not None else {}
    elif student.get("network") in known("networks"):
        texts["/student/network"] = student["network"]
        _put(student.get("options") or {}, "/student/options", texts)
    elif not budget:
        return
    _put(budget, BUDGET, texts)
    del rest["student"]


def _put(values: Mapping[str, Any], at: str, texts: dict[str, str]) -> None:
    for name, value in values.items():
        if value is not None:
            texts[f"{at}/{name}"] = _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
