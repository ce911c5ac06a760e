"""Specs for tests: hypothesis strategies over the catalogue's parameters, and matching facts."""

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from models.spec.catalogue import catalogue, known
from models.spec.job_spec import DatasetFacts, Facts, TeacherFacts

TEACHER, DATASET, OTHER, FILE = "tch_" + "1" * 32, "dts_" + "2" * 32, "dts_" + "3" * 32, "fil_" + "4" * 32
CONTRACT = {"channels": 1, "height": 32, "width": 32, "mean": [0.1307], "std": [0.3081]}

teacher_facts = TeacherFacts("lenet5", 10, CONTRACT)


def dataset_facts(classes: int = 10, channels: int = 1, **splits: int) -> DatasetFacts:
    image = {"channels": channels, "height": 28, "width": 28}
    return DatasetFacts({"classes": classes, "image": image, "splits": splits or {"train": 100, "test": 20}})


FACTS = Facts(teacher_facts, dataset_facts(), None)


def values(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a parameter's JSON schema."""
    if schema.get("$ref", "").startswith("#/files/"):
        return st.just(FILE)
    if schema.get("$ref") == "#/network":
        return networks()
    if schema.get("$ref") == "#/network_space":
        return spaces()
    if schema.get("$ref") == "#/layer":
        return st.one_of(*(parameters(entry["parameters"]) for entry in known("layers").values()))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of(*(st.none() if option == {"type": "null"} else values(option) for option in schema["anyOf"]))
    if schema["type"] == "array":
        if "prefixItems" in schema:
            return st.tuples(*map(values, schema["prefixItems"])).map(list)
        items = objectives() if schema["items"].get("$ref") == "#/objectives" else values(schema["items"])
        least = schema.get("minItems", 0)
        return st.lists(items, min_size=least, max_size=max(least, min(3, schema.get("maxItems", 3))))
    if schema["type"] == "boolean":
        return st.booleans()
    if schema["type"] == "string":
        return st.sampled_from(["layer1", "layer2.0.relu", "fc:pre"])
    return _numbers(schema)


def _numbers(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    least, most = schema.get("minimum"), schema.get("maximum")
    if schema["type"] == "integer":
        return st.integers(least if least is not None else -5, most if most is not None else (least or 0) + 1000)
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    return st.floats(
        least if least is not None else above,
        most if most is not None else below,
        exclude_min=least is None and above is not None,
        exclude_max=most is None and below is not None,
        allow_nan=False,
        allow_infinity=False,
    )


def parameters(schema: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of a method's parameters."""
    properties = {name: values(inner) for name, inner in schema.get("properties", {}).items()}
    required = schema.get("required", [])
    optional = {name: strategy for name, strategy in properties.items() if name not in required}
    return st.fixed_dictionaries({name: properties[name] for name in required}, optional=optional)


def methods(kind: str, extra: Mapping[str, st.SearchStrategy[Any]] | None = None) -> st.SearchStrategy[Any]:
    """A method of a kind: its bare name, or an object."""
    objects = [
        st.builds(lambda own, more, name=name: {"name": name, **own, **more}, parameters(entry["parameters"]), st.fixed_dictionaries({}, optional=dict(extra or {})))
        for name, entry in known(kind).items()
    ]  # fmt: skip
    return st.one_of(st.sampled_from(sorted(known(kind))), *objects)


weights = st.one_of(
    st.floats(0, 1000),
    st.integers(0, 1000),
    st.fixed_dictionaries(
        {"schedule": st.sampled_from(["linear", "cosine", "until"]), "start": st.floats(0, 10)},
        optional={"end": st.floats(0, 10), "until": st.floats(0.01, 1)},
    ),
)


def objectives() -> st.SearchStrategy[Any]:
    return methods("objectives", {"weight": weights})


def networks() -> st.SearchStrategy[dict[str, Any]]:
    named = [
        st.builds(lambda options, name=name: {"network": name, "options": options}, parameters(entry["parameters"]))
        for name, entry in catalogue()["networks"].items()
    ]
    return st.one_of(*named, st.just({"network": "torchvision/resnet18"}))


def spaces() -> st.SearchStrategy[dict[str, Any]]:
    """Families of networks: lists of values of some options."""

    def of(name: str, entry: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
        properties = entry["parameters"]["properties"]
        options = {option: st.lists(values(rule), min_size=1, max_size=3) for option, rule in properties.items()}
        return st.fixed_dictionaries(
            {"network": st.just(name)}, optional={"options": st.fixed_dictionaries({}, optional=options)}
        )

    return st.one_of(*(of(name, entry) for name, entry in catalogue()["networks"].items()))


trainings = st.fixed_dictionaries(
    {},
    optional={
        "batch_size": st.integers(1, 512),
        "optimizer": st.sampled_from(["sgd", "adam", "adamw"]),
        "learning_rate": st.none() | st.floats(1e-5, 1),
        "weight_decay": st.none() | st.floats(0, 0.1),
        "schedule": st.sampled_from(["constant", "cosine", "multistep"]),
        "milestones": st.lists(st.floats(0.01, 0.99), unique=True, max_size=4).map(sorted),
        "seed": st.integers(0, 2**63 - 1),
        "time_limit_minutes": st.none() | st.integers(1, 100),
    },
)
lengths = st.sampled_from([{}, {"epochs": 3}, {"steps": 50}, {"epochs": 3, "steps": None}])


def jobs() -> st.SearchStrategy[dict[str, Any]]:
    """Bodies that validate; the checks of a resolved spec may still find problems."""
    return st.fixed_dictionaries(
        {"student": networks()},
        optional={
            "name": st.text(st.characters(categories=["L"]), min_size=1, max_size=20),
            "labels": st.dictionaries(st.sampled_from(["a", "b"]), st.just("c")),
            "priority": st.integers(-100, 100),
            "teacher": st.sampled_from([None, TEACHER]),
            "dataset": st.sampled_from([None, DATASET]),
            "source": st.none() | methods("sources"),
            "objectives": st.none() | st.lists(objectives(), min_size=1, max_size=3),
            "procedure": st.none() | methods("procedures"),
            "training": st.builds(lambda training, length: training | length, trainings, lengths),
            "evaluation": st.sampled_from([None, {"dataset": DATASET}, {"dataset": OTHER, "split": "test"}]),
            "exports": st.sampled_from([["safetensors"], ["onnx", "safetensors"]]),
        },
    )


def facts_for(body: Mapping[str, Any]) -> Facts:
    """Facts about the inputs of a body."""
    evaluation = body.get("evaluation")
    return Facts(
        teacher_facts if body.get("teacher") else None,
        dataset_facts() if body.get("dataset") else None,
        dataset_facts() if evaluation else None,
    )
