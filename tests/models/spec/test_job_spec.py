"""Specs: accepted bodies, defaults, and error messages."""

import copy
import json
import math
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from models.spec.catalogue import known
from models.spec.job_spec import (
    DatasetFacts,
    DatasetSpec,
    Facts,
    FileSpec,
    JobSpec,
    Problem,
    TeacherFacts,
    TeacherSpec,
    check,
    problems_of,
    resolve,
)
from models.spec.problems import MOST_NAMED
from tests.models.spec.specs import (
    CONTRACT,
    DATASET,
    FACTS,
    OTHER,
    TEACHER,
    dataset_facts,
    facts_for,
    jobs,
    teacher_facts,
)

SMALLEST = {"teacher": TEACHER, "student": {"network": "lenet5_half"}}
WITH_DATA = SMALLEST | {"dataset": DATASET}


def resolved(body: dict[str, Any], facts: Facts = FACTS) -> dict[str, Any]:
    return resolve(JobSpec.model_validate(body), facts)


def refused(body: Any, spec: type[BaseModel] = JobSpec) -> dict[str, str]:
    with pytest.raises(ValidationError) as error:
        spec.model_validate(body)
    return {problem.pointer: problem.message for problem in problems_of(error.value)}


def found(body: dict[str, Any], facts: Facts = FACTS) -> dict[str, str]:
    return {problem.pointer: problem.message for problem in check(resolved(body, facts), facts)}


@settings(max_examples=150, deadline=None)
@given(jobs())
def test_a_resolved_spec_is_a_spec_and_resolves_to_itself(body: dict[str, Any]) -> None:
    facts, before = facts_for(body), copy.deepcopy(body)
    first = resolved(body, facts)
    assert body == before
    assert resolved(first, facts) == first
    assert json.loads(json.dumps(first, allow_nan=False)) == first
    check(first, facts)


@settings(max_examples=60, deadline=None)
@given(jobs())
def test_the_schema_accepts_what_the_spec_accepts(body: dict[str, Any]) -> None:
    SCHEMA.validate(body)
    SCHEMA.validate(resolved(body, facts_for(body)))


SCHEMA = jsonschema_rs.validator_for(JobSpec.model_json_schema())


@settings(max_examples=60, deadline=None)
@given(jobs())
def test_a_resolved_spec_has_every_parameter(body: dict[str, Any]) -> None:
    full = resolved(body, facts_for(body))
    written = [("objectives", one) for one in full["objectives"]]
    for kind, method in [*written, ("sources", full["source"]), ("procedures", full["procedure"])]:
        extra = {"name", "weight"} if kind == "objectives" else {"name"}
        assert set(method) == extra | set(known(kind)[method["name"]]["parameters"]["properties"])
    given = {name: value for name, value in (body.get("training") or {}).items() if value is not None}
    assert given.items() <= full["training"].items()
    assert (full["training"]["epochs"] is None) != (full["training"]["steps"] is None)
    assert None not in (full["training"]["learning_rate"], full["training"]["weight_decay"])


def places(value: Any, pointer: str = "") -> Iterator[str]:
    yield pointer
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from places(inner, f"{pointer}/{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, f"{pointer}/{index}")


@settings(max_examples=300, deadline=None)
@given(jobs(), st.data())
def test_pointers_exist_in_the_body(body: dict[str, Any], data: st.DataObject) -> None:
    spoiled = copy.deepcopy(body)
    place = data.draw(st.sampled_from([place for place in places(spoiled) if place]))
    *path, last = place.split("/")[1:]
    inner: Any = spoiled
    for part in path:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    wrong = data.draw(st.sampled_from([math.nan, "??", {"??": 1}, [[]], -1, True, 10**30]))
    inner[int(last) if isinstance(inner, list) else last] = wrong
    try:
        JobSpec.model_validate(spoiled)
    except ValidationError as error:
        problems = problems_of(error)
        assert problems
        for problem in problems:
            assert problem.pointer in set(places(spoiled)) or problem.message.startswith("is required")
            assert problem.message and "<" not in problem.pointer


def test_the_smallest_job_synthesises_images() -> None:
    full = resolved(SMALLEST)
    assert full["source"]["name"] == "dafl"
    assert [one["name"] for one in full["objectives"]] == ["kd", "kd"]
    assert full["student"]["classes"] == 10
    assert full["student"]["input"] == CONTRACT
    assert full["evaluation"] is None
    entry = known("sources")["dafl"]
    assert full["student"]["initial_weights"] == "teacher"
    assert full["training"] | entry["training_defaults"] | entry["sliced_training_defaults"] == full["training"]
    assert full["name"] == "lenet5_half from lenet5"
    assert check(full, FACTS) == []


def test_with_a_dataset_the_defaults_are_cross_entropy_and_kd() -> None:
    full = resolved(WITH_DATA)
    assert full["source"]["name"] == "dataset"
    assert [(one["name"], one["weight"]) for one in full["objectives"]] == [("cross_entropy", 0.1), ("kd", 0.9)]
    assert full["objectives"][1]["temperature"] == 4.0
    assert full["evaluation"] == {"dataset": DATASET, "split": "test"}
    assert full["training"]["epochs"] == 30
    assert check(full, FACTS) == []


def test_without_a_teacher_the_default_is_cross_entropy() -> None:
    body = {"student": {"network": "lenet5", "input": CONTRACT}, "dataset": DATASET}
    facts = Facts(None, dataset_facts(classes=7))
    full = resolved(body, facts)
    assert [(one["name"], one["weight"]) for one in full["objectives"]] == [("cross_entropy", 1.0)]
    assert full["student"]["classes"] == 7
    assert check(full, facts) == []


def test_the_default_evaluation_split_depends_on_the_dataset() -> None:
    def split(dataset: DatasetFacts) -> Any:
        return resolved(WITH_DATA, Facts(teacher_facts, dataset))["evaluation"]["split"]

    assert split(dataset_facts(train=10, test=10)) == "test"
    assert split(dataset_facts(train=10)) == "train"
    assert split(DatasetFacts(None)) is None


def test_defaults_depend_on_the_optimiser() -> None:
    def training(body: dict[str, Any], **given: Any) -> dict[str, Any]:
        return dict(resolved(body | {"training": given})["training"])

    assert training(WITH_DATA)["learning_rate"] == 0.002
    assert training(WITH_DATA, optimizer="adamw")["weight_decay"] == 0.01
    assert training(WITH_DATA, optimizer="adam", learning_rate=0.3)["learning_rate"] == 0.3
    source = known("sources")["dafl"]["training_defaults"] | known("sources")["dafl"]["sliced_training_defaults"]
    assert training(SMALLEST, optimizer=source["optimizer"])["learning_rate"] == source["learning_rate"]
    assert training(SMALLEST, optimizer="sgd")["learning_rate"] == 0.05
    assert training(SMALLEST, epochs=2)["steps"] is None
    assert training(SMALLEST, steps=7)["steps"] == 7


def test_students_with_sliced_weights_have_a_smaller_learning_rate_without_data() -> None:
    rates = {}
    for weights in ("teacher", "neuron_merging", "random"):
        body = SMALLEST | {"student": {**SMALLEST["student"], "initial_weights": weights}}
        rates[weights] = resolved(body)["training"]["learning_rate"]
        assert resolved(body | {"training": {"learning_rate": 0.3}})["training"]["learning_rate"] == 0.3
    assert rates == {"teacher": 2e-3, "neuron_merging": 2e-3, "random": 4e-3}


def test_a_method_may_be_written_as_its_name() -> None:
    body = WITH_DATA | {"source": "dataset", "objectives": ["kd"], "procedure": "direct"}
    longer = WITH_DATA | {
        "source": {"name": "dataset"},
        "objectives": [{"name": "kd"}],
        "procedure": {"name": "direct"},
    }
    assert resolved(body) == resolved(longer)


def test_nested_objectives_are_validated() -> None:
    body = WITH_DATA | {"procedure": {"name": "two_stage", "first": ["hint"], "second": [{"name": "kd", "weight": 3}]}}
    procedure = resolved(body)["procedure"]
    assert set(procedure["first"][0]) == {"name", "weight", *known("objectives")["hint"]["parameters"]["properties"]}
    assert procedure["second"][0]["weight"] == 3.0
    wrong = WITH_DATA | {"procedure": {"name": "two_stage", "first": ["kd", {"name": "kd", "temperature": 0}]}}
    assert refused(wrong) == {"/procedure/first/1/temperature": "must be greater than 0, not 0"}


@pytest.mark.parametrize(
    ("part", "pointer", "message"),
    [
        ({"objectives": [{"name": "kd", "temperature": -1}]}, "/objectives/0/temperature", "must be greater than 0, not -1"),
        ({"objectives": ["kd", "kdd"]}, "/objectives/1", "there is no objective 'kdd'; did you mean"),
        ({"objectives": [{"name": "kdd"}]}, "/objectives/0/name", "there is no objective 'kdd'; did you mean"),
        ({"objectives": [{"name": ["kd"]}]}, "/objectives/0/name", "there is no objective ['kd']"),
        ({"objectives": [{"temperature": 4}]}, "/objectives/0/name", "is required: the name of one of the objectives"),
        ({"objectives": [3]}, "/objectives/0", "must be a name, or an object"),
        ({"objectives": []}, "/objectives", "must have at least 1 item, not 0"),
        ({"objectives": [{"name": "kd", "temprature": 4}]}, "/objectives/0/temprature", "is not a parameter of kd; its parameters:"),
        ({"objectives": [{"name": "kd", "temperature": "4"}]}, "/objectives/0/temperature", "must be a number, not '4'"),
        ({"objectives": [{"name": "kd", "temperature": True}]}, "/objectives/0/temperature", "must be a number, not true"),
        ({"objectives": [{"name": "kd", "temperature": math.nan}]}, "/objectives/0/temperature", "must be finite"),
        ({"objectives": [{"name": "kd", "weight": -1}]}, "/objectives/0/weight", "must be at least 0, not -1"),
        ({"objectives": [{"name": "kd", "weight": math.inf}]}, "/objectives/0/weight", "must be finite"),
        ({"objectives": [{"name": "kd", "weight": {"start": 1}}]}, "/objectives/0/weight/schedule", "is required"),
        ({"objectives": [{"name": "nst", "taps": [["a"]]}]}, "/objectives/0/taps/0/1", "is required"),
        ({"objectives": [{"name": "nst", "kernel": "cubic"}]}, "/objectives/0/kernel", "must be "),
        ({"source": "daffl"}, "/source", "there is no source 'daffl'; did you mean dafl? known are cmi, cpnet, dafl, dataset"),
        ({"procedure": {"name": "direct", "x": 1}}, "/procedure/x", "is not a parameter of direct; its parameters: none"),
        ({"student": {}}, "/student/network", "is required"),
        ({"student": {"network": "lenet6"}}, "/student/network", "there is no network 'lenet6'; did you mean lenet or lenet5"),
        ({"student": {"network": "LeNet5-Half"}}, "/student/network", "there is no network 'LeNet5-Half'; did you mean lenet5_half"),
        ({"objectives": ["KD"]}, "/objectives/0", "there is no objective 'KD'; did you mean kd"),
        ({"student": {"network": "timm/../x"}}, "/student/network", "there is no network"),
        ({"student": {"network": "mlp", "options": {"hidden": [0]}}}, "/student/options/hidden/0", "must be at least 1"),
        ({"student": {"network": "mlp", "options": {"hidden": math.nan}}}, "/student/options/hidden", "must be a list, not nan"),
        ({"student": {"network": "mlp", "options": {"hiden": [2]}}}, "/student/options/hiden", "is not a known field"),
        ({"student": {"network": "torchvision/resnet18", "options": {"x": 1}}}, "/student/options/x", "is not a known"),
        ({"teacher": "dts_1"}, "/teacher", "must be the id of a teacher, beginning with tch_, or of a job"),
        ({"dataset": "tch_1"}, "/dataset", "must be the id of a dataset"),
        ({"training": {"epochs": 1, "steps": 1}}, "/training/steps", "set `epochs` or `steps`, not both"),
        ({"training": {"epochs": 1.5}}, "/training/epochs", "must be an integer, not 1.5"),
        ({"training": {"batch_size": 0}}, "/training/batch_size", "must be at least 1, not 0"),
        ({"training": {"milestones": [0.5, 0.2]}}, "/training/milestones", "must be in increasing order"),
        ({"training": []}, "/training", "must be an object, not a list"),
        ({"exports": ["onnx", "onnx"]}, "/exports", "must name each format once"),
        ({"exports": ["tflite"]}, "/exports/0", "must be 'safetensors', 'onnx', 'program', 'safetensors_fp16', 'onnx_fp16', 'packed' or 'huffman', not 'tflite'"),
        ({"webhook": "http://x.org"}, "/webhook/url", "must start with https://"),
        ({"webhook": "https://169.254.169.254/"}, "/webhook/url", "must have a public address"),
        ({"webhook": {"url": "https://x.org", "events": ["job.queued"]}}, "/webhook/events/0", "must be 'job.running'"),
        ({"labels": {"a": 1}}, "/labels/a", "must be a string, not 1"),
        ({"priority": 1000}, "/priority", "must be at most 100"),
        ({"transforms": ["shrink"]}, "/transforms/0", "there is no transform 'shrink'"),
        ({"a/b~c": 1}, "/a~1b~0c", "is not a known field"),
        ({"sorce": "dafl"}, "/sorce", "is not a known field; did you mean source"),
        ({"training": {"lr": 0.1}}, "/training/lr", "is not a known field; did you mean learning_rate?"),
    ],
)  # fmt: skip
def test_error_messages(part: dict[str, Any], pointer: str, message: str) -> None:
    problems = refused(WITH_DATA | part)
    assert set(problems) == {pointer}
    assert problems[pointer].startswith(message)


def test_very_many_unknown_fields_are_not_compared_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.spec.problems.meant", None)
    found = refused(WITH_DATA | {f"tasks{number}": 1 for number in range(MOST_NAMED + 1)})
    assert set(found.values()) == {"is not a known field"}


def test_all_problems_are_reported_at_once() -> None:
    body = {"student": {"network": "lenet6"}, "objectives": ["kdd", {"name": "kd", "temperature": 0}], "foo": 1}
    assert set(refused(body)) == {"/student/network", "/objectives/0", "/objectives/1/temperature", "/foo"}


def test_pointers_do_not_start_with_body() -> None:
    entry = {"type": "missing", "loc": ("body", "student", "network"), "msg": "Field required", "input": {}}
    assert problems_of([entry], skip=1) == [Problem("/student/network", "is required")]


def test_labels_need_a_dataset() -> None:
    problems = found(SMALLEST | {"objectives": ["kd", "cross_entropy"]})
    message = "cross_entropy needs labels; set source/labels to 'teacher', or remove cross_entropy"
    assert problems == {"/objectives/1": message}


def test_objectives_that_compare_networks_need_a_teacher() -> None:
    body = {
        "student": {"network": "lenet5", "input": CONTRACT},
        "dataset": DATASET,
        "objectives": ["cross_entropy", "nst"],
    }
    problems = found(body, Facts(None, dataset_facts()))
    assert problems == {"/objectives/1": "nst needs a teacher, and the job has none"}


def test_a_synthesiser_needs_a_differentiable_teacher() -> None:
    assert set(found({"student": {"network": "lenet5"}}, Facts())) >= {"/teacher", "/student/input", "/student/classes"}
    opaque = TeacherFacts("lenet5", 10, CONTRACT, findings={"differentiable": False})
    problems = found(SMALLEST | {"source": "dafl"}, Facts(opaque))
    assert problems["/teacher"].startswith(
        "is not differentiable, but the source 'dafl' needs gradients through the teacher"
    )
    assert "substitute" in problems["/teacher"] and "noise" in problems["/teacher"]
    body = SMALLEST | {"dataset": DATASET, "objectives": ["kd", "attention_gradient"]}
    assert "the teacher, which is not differentiable" in found(body, Facts(opaque, dataset_facts()))["/objectives/1"]
    for source in ("noise", "substitute"):
        assert found(body | {"source": source, "objectives": None}, Facts(opaque, dataset_facts())) == {}


def test_the_labels_of_a_substitute_dataset_are_ignored() -> None:
    body, facts = WITH_DATA | {"source": "substitute"}, Facts(teacher_facts, dataset_facts(classes=3))
    assert found(body, facts) == {} and resolved(body, facts)["evaluation"] is None
    for source in ("substitute", "dafl"):
        held = body | {"source": source, "training": {"validation_fraction": 0.1, "selection": "best"}}
        words = f"needs labelled images, and the source {source!r} provides none; set 0"
        assert found(held, facts)["/training/validation_fraction"] == words
    labels = body | {"objectives": ["cross_entropy"]}
    assert set(found(labels, facts)) == {"/objectives/0"}
    taught = labels | {"source": {"name": "substitute", "labels": "teacher"}}
    assert found(taught, facts) == {}
    assert found(SMALLEST | {"source": "substitute"})["/dataset"].startswith("the source 'substitute' needs a dataset")


def test_several_devices_need_a_dataset() -> None:
    two = {"resources": {"gpus": 2}}
    assert found(WITH_DATA | two, Facts(teacher_facts, dataset_facts())) == {}
    problems = found(SMALLEST | two)
    assert list(problems) == ["/resources/gpus"]
    assert problems["/resources/gpus"].startswith("must be 1: the source 'dafl' runs on one device; set 1")


def test_the_dataset_source_needs_a_dataset() -> None:
    assert "/dataset" in found(SMALLEST | {"source": "dataset"})


def test_objectives_on_logits_need_the_same_number_of_classes() -> None:
    facts = Facts(teacher_facts, dataset_facts(classes=5))
    problems = found(WITH_DATA | {"student": {"network": "lenet5_half", "classes": 5}}, facts)
    assert set(problems) == {"/objectives/1"}
    assert "the teacher has 10 classes and the student 5" in problems["/objectives/1"]
    body = WITH_DATA | {"student": {"network": "lenet5_half", "classes": 5}, "objectives": ["cross_entropy", "nst"]}
    assert found(body, facts) == {}
    assert found(WITH_DATA, facts) == problems  # the student's classes are those of the labels that it learns
    unlabelled = WITH_DATA | {"objectives": ["kd"], "evaluation": {"dataset": OTHER}}
    assert resolved(unlabelled, facts)["student"]["classes"] == 10


def test_objectives_on_logits_need_a_common_class_name() -> None:
    def problems(known: str, own: list[str], **part: Any) -> dict[str, str]:
        teacher = TeacherFacts("lenet5", 10, CONTRACT, class_names=list(known))
        dataset = DatasetFacts({**(dataset_facts().findings or {}), "class_names": own})
        return found(WITH_DATA | part, Facts(teacher, dataset))

    other = list("klmnopqrst")
    assert set(problems("abcdefghij", other)) == {"/objectives/1"}
    assert problems("abcdefghij", other, objectives=["cross_entropy", "nst"]) == {}
    assert problems("abcdefghij", other, objectives=["kd"]) == {}  # any images will do
    assert problems("abcdefghij", list("jabcdefghi")) == problems("", other) == {}
    assert problems("abcdefghij", [str(number) for number in range(10)]) == {}


def test_class_names_that_are_only_partly_the_same_are_refused() -> None:
    teacher = TeacherFacts("lenet5", 10, CONTRACT, class_names=list("abcdefghij"))
    findings = (dataset_facts().findings or {}) | {"class_names": list("jabcdefghx")}
    problems = found(WITH_DATA, Facts(teacher, DatasetFacts(findings)))
    assert set(problems) == {"/dataset"}
    assert "only the dataset has `x`, and only the teacher `i`" in problems["/dataset"]
    evaluated = WITH_DATA | {"evaluation": {"dataset": OTHER}}
    assert set(found(evaluated, Facts(teacher, dataset_facts(), DatasetFacts(findings)))) == {"/evaluation/dataset"}
    shortened = findings | {"class_names": list("jabx")}  # as the findings of very many classes
    assert found(WITH_DATA, Facts(teacher, DatasetFacts(shortened))) == {}


def test_needs_depend_on_parameters() -> None:
    facts = Facts(TeacherFacts("lenet5", 2, CONTRACT))
    assert found(SMALLEST | {"objectives": ["kd"]}, facts) == {}
    problems = found(SMALLEST | {"objectives": [{"name": "kd", "standardise": True}]}, facts)
    assert problems == {"/objectives/0": "kd needs at least 3 classes, but the student has 2"}


def test_images_and_networks_need_convertible_channels() -> None:
    colours = TeacherFacts("lenet5", 10, CONTRACT | {"channels": 4, "mean": [0] * 4, "std": [1] * 4})
    assert found(WITH_DATA, Facts(teacher_facts, dataset_facts(channels=3))) == {}
    assert found(WITH_DATA, Facts(colours, dataset_facts(channels=1))) == {}
    assert set(found(WITH_DATA, Facts(colours, dataset_facts(channels=3)))) == {"/dataset"}
    body = WITH_DATA | {"evaluation": {"dataset": OTHER}}
    assert set(found(body, Facts(colours, dataset_facts(channels=1), dataset_facts(channels=3)))) == {
        "/evaluation/dataset"
    }


def test_the_evaluation_dataset_must_fit() -> None:
    body = WITH_DATA | {"evaluation": {"dataset": DATASET, "split": "test"}}
    assert set(found(body, Facts(teacher_facts, dataset_facts(train=10)))) == {"/evaluation/split"}
    other = WITH_DATA | {"evaluation": {"dataset": OTHER}}
    assert set(found(other, Facts(teacher_facts, dataset_facts(), dataset_facts(classes=3)))) == {"/evaluation/dataset"}


def test_selection_of_the_best_weights_needs_validation_images() -> None:
    best = {"training": {"selection": "best"}}
    assert set(found(WITH_DATA | best)) == {"/training/validation_fraction"}
    assert found(WITH_DATA | {"training": {"selection": "best", "validation_fraction": 0.1}}) == {}
    assert set(found(SMALLEST | {"training": {"validation_fraction": 0.1}})) == {"/training/validation_fraction"}


def test_the_students_input_must_equal_the_teachers() -> None:
    body = SMALLEST | {"student": {"network": "lenet5_half", "input": CONTRACT | {"mean": [0.5]}}}
    assert set(found(body)) == {"/student/input"}
    whole = TeacherFacts("lenet5", 10, CONTRACT | {"mean": [0], "std": [1]})
    assert found(SMALLEST, Facts(whole)) == {}


def test_inputs_are_not_checked_before_their_inspection() -> None:
    unknown = Facts(teacher_facts, DatasetFacts(None), DatasetFacts(None))
    assert found(WITH_DATA | {"evaluation": {"dataset": OTHER, "split": "test"}}, unknown) == {}


def test_two_different_samplers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = copy.deepcopy(known("objectives"))
    for name, sampler in (("kd", "per_class"), ("nst", "pairs")):
        entries[name]["needs"]["sampler"] = sampler
    sources = copy.deepcopy(known("sources"))
    sources["dataset"]["samplers"], sources["dafl"]["samplers"] = ["per_class", "pairs"], []
    changed = {"objectives": entries, "sources": sources}
    for module in ("checks", "catalogue"):
        monkeypatch.setattr(f"models.spec.{module}.known", lambda kind: changed.get(kind) or known(kind))
    problems = found(WITH_DATA | {"objectives": ["kd", "nst", "kd"]})
    assert problems == {"/objectives/1": "two objectives need different samplers: per_class, pairs"}
    assert (
        "needs the sampler 'per_class', which the source does not have"
        in found(SMALLEST | {"objectives": ["kd"]})["/objectives/0"]
    )
    sources["dataset"]["samplers"] = ["per_class"]
    assert (
        "needs the sampler 'pairs', which the source does not have"
        in found(WITH_DATA | {"objectives": ["nst"]})["/objectives/0"]
    )


def test_the_per_class_sampler_needs_two_images_of_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    entries, sources = copy.deepcopy(known("objectives")), copy.deepcopy(known("sources"))
    entries["nst"]["needs"]["sampler"], sources["dataset"]["samplers"] = "per_class", ["per_class"]
    changed = {"objectives": entries, "sources": sources}
    for module in ("checks", "catalogue"):
        monkeypatch.setattr(f"models.spec.{module}.known", lambda kind: changed.get(kind) or known(kind))
    findings = dict(dataset_facts(classes=10).findings or {})
    findings |= {"class_names": list("abcdefghij"), "per_class": {"train": [5, 1, 9, 1, 2, 2, 2, 2, 2, 0]}}
    facts = Facts(teacher_facts, DatasetFacts(findings))
    problems = found(WITH_DATA | {"objectives": ["nst"]}, facts)
    assert problems == {
        "/dataset": "must have at least two training images of each class; these classes have one: b, d"
    }
    assert found(WITH_DATA | {"objectives": ["kd"]}, facts) == {}


GOOD_TEACHER = {"network": "lenet5", "classes": 10, "input": CONTRACT}


@pytest.mark.parametrize(
    ("part", "pointer", "message"),
    [
        (
            {"input": CONTRACT | {"mean": [0.1, 0.2]}},
            "/input/mean",
            "must have one number for each of 1 channels, not 2",
        ),
        ({"input": CONTRACT | {"std": [0]}}, "/input/std/0", "must be greater than 0, not 0"),
        ({"input": CONTRACT | {"height": 0}}, "/input/height", "must be at least 1"),
        ({"input": CONTRACT | {"height": 10**6}}, "/input/height", "must be at most 4096"),
        ({"classes": 0}, "/classes", "must be at least 1"),
        ({"classes": 10**9}, "/classes", "must be at most 100000"),
        ({"class_names": ["a"]}, "/class_names", "must have one name for each of 10 classes, not 1"),
        ({"network": "lenet6"}, "/network", "there is no network"),
        ({"name": ""}, "/name", "must have at least 1 character"),
    ],
)
def test_error_messages_of_a_teacher(part: dict[str, Any], pointer: str, message: str) -> None:
    TeacherSpec.model_validate(GOOD_TEACHER)
    problems = refused(GOOD_TEACHER | part, TeacherSpec)
    assert set(problems) == {pointer}
    assert problems[pointer].startswith(message)


def test_datasets_and_files() -> None:
    assert DatasetSpec.model_validate({}).options.height is None
    assert set(refused({"options": {"channels": 2}}, DatasetSpec)) == {"/options/channels"}
    assert FileSpec.model_validate({"kind": "weights"}).kind == "weights"
    for options in ({"x": "y" * 256}, {"x": ["nested"]}, {"x" * 64: 1}):
        with pytest.raises(ValidationError):
            FileSpec.model_validate({"kind": "weights", "options": options})
    assert set(refused({"kind": "pickle"}, FileSpec)) == {"/kind"}


@pytest.mark.parametrize("spec", [JobSpec, TeacherSpec, DatasetSpec, FileSpec])
def test_every_field_has_a_description_and_valid_examples(spec: type[BaseModel]) -> None:
    schema = spec.model_json_schema()
    for part in [schema, *schema.get("$defs", {}).values()]:
        for name, entry in part.get("properties", {}).items():
            assert entry.get("description"), f"{part['title']}.{name} has no description"
            for example in entry.get("examples", []):
                rule = {key: value for key, value in entry.items() if key != "examples"} | {
                    "$defs": schema.get("$defs", {})
                }
                jsonschema_rs.validator_for(rule).validate(example)
