"""The form of a new job: fields from the catalogue's JSON schema, and specs from the fields of a form."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from api.dashboard.visitors import Form
from models.spec.catalogue import known, part

OBJECTIVES = 6
"""Number of objectives in the form."""
FURTHER = "further"
"""Name of the field for the fields of a spec that the form does not have."""
METHODS = {"source": "sources", "procedure": "procedures"}
PLAIN = ("name", "teacher", "dataset")
BUDGET = "/student/budget"
SEVERAL = "[]"
"""End of the names of checkboxes whose values are a list together."""
WHOLE = re.compile(r"[+-]?\d{1,18}")


@dataclass(frozen=True)
class Field:
    """One field of the form. `at` is the JSON pointer of its value in the spec."""

    at: str
    name: str
    about: str
    default: str
    kind: str
    choices: tuple[str, ...] = ()
    limits: str = ""

    @property
    def id(self) -> str:
        """The id of its element."""
        return "f" + self.at.replace("/", "-")


def fields(schema: Mapping[str, Any], at: str) -> list[Field]:
    """A field for every parameter of a schema of the catalogue."""
    return [_field(f"{at}/{name}", name, each) for name, each in schema.get("properties", {}).items()]


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


def _field(at: str, name: str, schema: Mapping[str, Any]) -> Field:
    types, choices = types_of(schema), choices_of(schema)
    several = choices_of(schema["items"]) if types == {"array"} and "items" in schema else ()
    kind = (
        "several"
        if several
        else "choice"
        if choices
        else "switch"
        if "boolean" in types
        else "number"
        if types & {"integer", "number"}
        else "text"
    )
    given = schema.get("default")
    default = "" if given is None else given if isinstance(given, str) else json.dumps(given)
    default = ", ".join(map(str, given)) if several and given else default
    about = str(schema.get("description", ""))
    return Field(at, name.replace("_", " "), about, default, kind, several or choices, _limits(schema))


def types_of(schema: Mapping[str, Any]) -> set[str]:
    """The JSON types that a schema allows."""
    found: set[str] = set()
    for each in (schema, *schema.get("anyOf", ())):
        kind = each.get("type")
        found |= {kind} if isinstance(kind, str) else set(kind or ())
    return found


def choices_of(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts of an enumeration; empty if a value may be something else."""
    for each in (schema, *schema.get("anyOf", ())):
        if "enum" in each and not types_of(schema) - {"null", "string"}:
            return tuple(str(value) for value in each["enum"] if value is not None)
    return ()


def _limits(schema: Mapping[str, Any]) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    found = [
        f"{word} {each[name]:g}"
        for each in (schema, *schema.get("anyOf", ()))
        for name, word in words.items()
        if name in each
    ]
    return ", ".join(found)


@dataclass
class Written:
    """What a form says: the spec, the row of the form of each objective, and what could not be read."""

    spec: dict[str, Any] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def place_of(self, pointer: str) -> str:
        """The pointer with the objective's row in the form instead of its place in the list."""
        found = re.match(r"/objectives/(\d+)(.*)", pointer)
        if found is None or int(found[1]) >= len(self.rows):
            return pointer
        return f"/objectives/{self.rows[int(found[1])]}{found[2]}"


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
        spec["student"] = {"like": "teacher"} | _typed({"width": "number"}, texts, "/student")
    elif "/student/network" in texts:
        spec["student"] = {"network": texts["/student/network"]}
        spec["student"] |= _typed_by(known("networks"), texts["/student/network"], texts, "/student/options", "options")
    if budget := _parameters(part("budget")["parameters"], texts, BUDGET):
        spec["student"] = spec.get("student", {}) | {"budget": budget}
    for name, kind in METHODS.items():
        chosen = texts.get(f"/{name}/name", "")
        if chosen:
            spec[name] = {"name": chosen} | _typed_by(known(kind), chosen, texts, f"/{name}")
    training = _parameters(part("training")["parameters"], texts, "/training")
    spec |= {"training": training} if training else {}
    for row in range(OBJECTIVES):
        at = f"/objectives/{row}"
        if chosen := texts.get(f"{at}/name", ""):
            given = (
                {"name": chosen}
                | _typed({"weight": "number"}, texts, at)
                | _typed_by(known("objectives"), chosen, texts, at)
            )
            spec.setdefault("objectives", []).append(given)
            written.rows.append(row)
    _add_further(form.get(FURTHER, ""), written)
    return written


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
    values = _parameters(found["parameters"], texts, at) if found else {}
    return ({into: values} if values else {}) if into else values


def _parameters(schema: Mapping[str, Any], texts: Mapping[str, str], at: str) -> dict[str, Any]:
    properties = schema.get("properties", {})
    return {
        name: value_of(texts[f"{at}/{name}"], types_of(each))
        for name, each in properties.items()
        if f"{at}/{name}" in texts
    }


def _typed(names: Mapping[str, str], texts: Mapping[str, str], at: str) -> dict[str, Any]:
    return {name: value_of(texts[f"{at}/{name}"], {kind}) for name, kind in names.items() if f"{at}/{name}" in texts}


def value_of(text: str, types: set[str]) -> Any:
    """The value that a text stands for; the text itself if it is none of these types, so that the check of the spec says so."""
    if types & {"integer", "number"} and WHOLE.fullmatch(text):
        return int(text)
    if "number" in types:
        try:
            return float(text)
        except ValueError:
            return text
    if "boolean" in types and text in ("true", "false"):
        return text == "true"
    if types & {"array", "object"} or not types:
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


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
    objectives = rest.get("objectives")
    if (
        isinstance(objectives, list)
        and len(objectives) <= OBJECTIVES
        and all(isinstance(one, dict) for one in objectives)
    ):
        for row, one in enumerate(rest.pop("objectives")):
            _put(one, f"/objectives/{row}", texts)
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
