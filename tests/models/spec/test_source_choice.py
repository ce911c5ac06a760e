"""The choice of a source for a job that names none."""

from typing import Any

import pytest

from models.spec import source_choice
from models.spec.facts import DatasetFacts, Facts, TeacherFacts
from models.spec.job_spec import JobSpec, check, resolve
from tests.models.spec.specs import CONTRACT, DATASET, TEACHER, dataset_facts

SMALLEST = {"teacher": TEACHER, "student": {"network": "lenet5_half"}}
ALL = {rule.source: {"tasks": ["classification"]} for rule in source_choice.RULES}


def teacher(classes: int = 10, **findings: Any) -> TeacherFacts:
    return TeacherFacts("lenet5", classes, CONTRACT, findings={"differentiable": True, "batch_norm": False} | findings)


UNLABELLED = {"classes": 0, "labels": "none", "image": {"channels": 1}, "splits": {"train": 100}}
CASES = {
    "a LeNet": ({}, Facts(teacher()), "procedural", "no BatchNorm"),
    "one with BatchNorm": ({}, Facts(teacher(batch_norm=True)), "fast_meta", "statistics"),
    "many classes": ({}, Facts(teacher(classes=200)), "dfad", "more than 100 classes"),
    "outputs only": ({}, Facts(teacher(differentiable=False)), "noise", "not differentiable"),
    "not inspected yet": ({}, Facts(TeacherFacts("lenet5", 10, CONTRACT)), "dafl", "is not inspected yet"),
    "a dataset": ({"dataset": DATASET}, Facts(teacher(), dataset_facts()), "dataset", "a dataset is given"),
    "images without labels": ({"dataset": DATASET}, Facts(teacher(), DatasetFacts(UNLABELLED)), "substitute", "no labels"),
    "images of one class": ({"dataset": DATASET}, Facts(teacher(), dataset_facts(classes=1)), "substitute", "one class"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_inputs_determine_the_source(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_choice, "known", lambda _: ALL)
    more, facts, source, word = CASES[case]
    name, why = source_choice.choose(SMALLEST | more, facts)
    assert name == source and why.startswith(f"{source}, because ") and word in why


def test_only_sources_of_the_catalogue_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_choice, "known", lambda _: {name: ALL[name] for name in ("dafl", "dataset")})
    for more, facts, _, _ in CASES.values():
        assert source_choice.choose(SMALLEST | more, facts)[0] in ("dafl", "dataset")


@pytest.mark.parametrize("given", [{}, {"source": None}, {"source": "auto"}, {"source": {"name": "auto"}}])
def test_no_source_and_auto_are_the_same_and_the_resolved_spec_has_the_reason(given: dict[str, Any]) -> None:
    facts = Facts(teacher())
    first = resolve(JobSpec.model_validate(SMALLEST | given), facts)
    assert first["source"]["name"] == "procedural"
    assert first["reasons"]["/source"].startswith("procedural, because the teacher")
    assert first["procedure"]["name"] == "source_trials" and first["procedure"]["sources"] == ["dafl"]
    assert "no source is named" in first["reasons"]["/procedure"]
    assert resolve(JobSpec.model_validate(first), facts) == first


@pytest.mark.parametrize(
    "given",
    [
        {"source": "dafl"},
        {"procedure": "direct"},
        {"task": "multi_label"},
        {"dataset": DATASET},
    ],
)
def test_nothing_is_tried_where_a_choice_was_made_or_the_estimate_does_not_apply(given: dict[str, Any]) -> None:
    facts = Facts(teacher(), dataset_facts() if "dataset" in given else None)
    full = resolve(JobSpec.model_validate(SMALLEST | given), facts)
    assert full["procedure"]["name"] == "direct" and "/procedure" not in full["reasons"]


@pytest.mark.parametrize("change", [{"training": {"epochs": 3}}, {"dataset": DATASET, "source": "dataset"}])
def test_trials_need_synthesised_images_and_steps(change: dict[str, Any]) -> None:
    facts = Facts(teacher(), dataset_facts() if "dataset" in change else None)
    spec = JobSpec.model_validate(SMALLEST | {"source": "procedural", "procedure": "source_trials"} | change)
    [problem] = [each for each in check(resolve(spec, facts), facts) if "source_trials" in each.message]
    assert problem.pointer == ("/source" if "dataset" in change else "/training/steps")


def test_multi_label_teachers_are_distilled_without_data_with_sigmoid_outputs() -> None:
    facts = Facts(teacher(classes=3, batch_norm=True))
    full = resolve(JobSpec.model_validate(SMALLEST | {"task": "multi_label"}), facts)
    assert full["source"]["name"] == "dafl" and check(full, facts) == []
    assert full["reasons"]["/source"].startswith(
        "dafl, because fast_meta, the first choice for these inputs, does not support"
    )
    assert [(one["name"], one["outputs"], one["weight"]) for one in full["objectives"]] == [("kd", "sigmoid", 1.0)]


def test_a_source_that_the_user_sets_has_no_reason() -> None:
    spec = JobSpec.model_validate(SMALLEST | {"source": "dafl"})
    assert "/source" not in resolve(spec, Facts(teacher()))["reasons"]


@pytest.mark.parametrize(
    ("findings", "classes", "standardised"),
    [({"homogeneous": True}, 10, True), ({"homogeneous": False}, 10, False), ({}, 10, False), ({"homogeneous": True}, 2, False)],
)  # fmt: skip
def test_students_of_homogeneous_teachers_learn_standardised_logits(
    findings: dict[str, Any], classes: int, standardised: bool
) -> None:
    found = resolve(JobSpec.model_validate(SMALLEST), Facts(teacher(classes, **findings)))
    assert all(one["name"] == "kd" and one["standardise"] is standardised for one in found["objectives"])
    assert ("/objectives" in found["reasons"]) is standardised


def test_objectives_that_are_asked_for_stay_with_a_homogeneous_teacher() -> None:
    asked = SMALLEST | {"objectives": [{"name": "kd", "temperature": 4.0}]}
    found = resolve(JobSpec.model_validate(asked), Facts(teacher(homogeneous=True)))
    assert [one["standardise"] for one in found["objectives"]] == [False] and "/objectives" not in found["reasons"]
