"""What a job lacks for its procedure, and what its procedure fills in that cannot work, is refused with its place."""

from typing import Any

from models.spec.catalogue import known
from models.spec.job_spec import DatasetFacts, Facts, JobSpec, TeacherFacts, check, resolve
from tests.models.spec.specs import CONTRACT, DATASET, TEACHER, dataset_facts

KIND = {"multi_label": "multi_label", "regression": "target"}
TAUGHT = {"teacher": TEACHER, "student": {"network": "lenet5_half"}, "dataset": DATASET}
ALONE = {"student": {"network": "lenet5_half", "input": CONTRACT}, "dataset": DATASET}
HELD_OUT = {"training": {"epochs": 10, "validation_fraction": 0.1}}
GREEDY = {"procedure": {"name": "route", "choice": "greedy"}}


def found(body: dict[str, Any], task: str = "classification") -> dict[str, str]:
    teacher = TeacherFacts("lenet5", 10, CONTRACT) if body.get("teacher") else None
    findings = {**(dataset_facts().findings or {}), "labels": KIND.get(task, "class")}
    facts = Facts(teacher, DatasetFacts(findings) if body.get("dataset") else None, None)
    full = resolve(JobSpec.model_validate(body | {"task": task}), facts)
    told: dict[str, str] = {}
    for problem in check(full, facts):
        told[problem.pointer] = "; ".join(filter(None, (told.get(problem.pointer), problem.message)))
    return told


def test_a_search_chooses_by_images_that_are_held_out() -> None:
    body = TAUGHT | {"procedure": "architecture_search"}
    words = "architecture_search chooses by labelled images that are held out of a dataset"
    assert found(body) == {"/training/validation_fraction": f"must be greater than 0: {words}"}
    assert found(body | HELD_OUT) == {}
    assert found(body | {"dataset": None}) == {"/procedure": f"{words}, and the source 'dafl' gives none"}
    assert found(body | {"source": "substitute"}) == {"/procedure": f"{words}, and the source 'substitute' gives none"}


def test_a_greedy_route_does_and_an_equal_one_does_not() -> None:
    problems = found(ALONE | GREEDY)
    assert list(problems) == ["/training/validation_fraction"]
    assert problems["/training/validation_fraction"].startswith(
        "must be greater than 0: route with `choice` = 'greedy'"
    )
    assert found(ALONE | GREEDY | HELD_OUT) == {}
    assert found(ALONE | {"procedure": "route"}) == {}


def test_what_a_procedure_cannot_compare_is_refused() -> None:
    search = TAUGHT | HELD_OUT | {"procedure": "architecture_search"}
    assert found(search, "regression") == {
        "/procedure": "architecture_search is for classification or multi_label or embedding, not for the task regression"
    }
    assert found(search, "multi_label") == {}
    greedy = {"/procedure/choice": "route with `choice` = 'greedy' is for classification, not for the task multi_label"}
    assert found(ALONE | GREEDY | HELD_OUT, "multi_label") == greedy


def test_a_search_wants_figures_that_are_better_the_higher_they_are() -> None:
    suited = {name for name, task in known("tasks").items() if task["higher_is_better"]}
    assert set(known("procedures")["architecture_search"]["needs"]["tasks"]) == suited


def test_peers_are_those_of_a_cohort() -> None:
    objectives = ["cross_entropy", "mutual"]
    words = "mutual learns from the other members of a cohort, and the job trains none; choose the procedure `mutual`"
    assert found(TAUGHT | {"objectives": objectives}) == {"/objectives/1": words}
    assert found(TAUGHT | {"objectives": objectives, "procedure": "mutual"}) == {}


def two_stage(preset: str, **values: Any) -> dict[str, Any]:
    return {"procedure": {"name": "two_stage", "preset": preset, **values}}


def test_a_preset_for_another_task_is_refused() -> None:
    body = TAUGHT | two_stage("saputra", guided="relu3", hint="relu3")
    assert found(body, "regression") == {}
    problems = found(body)
    assert list(problems) == ["/procedure/preset"]
    assert problems["/procedure/preset"].startswith("fills in an objective that cannot work: attentive_")
    assert "is for regression, not for the task classification" in problems["/procedure/preset"]
    assert list(found(TAUGHT | two_stage("saputra", first=["hint"]))) == ["/procedure/preset"]
    assert list(found(TAUGHT | two_stage("saputra", second=["kd"]))) == ["/procedure/preset"]
    assert found(TAUGHT | two_stage("saputra", first=["hint"], second=["kd"])) == {}


def test_what_a_preset_fills_in_is_checked_as_what_is_written() -> None:
    untaught = found(ALONE | two_stage("fitnets"))
    assert list(untaught) == ["/procedure/preset"]
    assert "work: hint compares the student with a teacher, and the job has none" in untaught["/procedure/preset"]
    unlabelled = found(TAUGHT | two_stage("fitnets") | {"dataset": None})
    assert list(unlabelled) == ["/procedure/preset"]
    assert "work: cross_entropy needs labels" in unlabelled["/procedure/preset"]
    assert found(TAUGHT | two_stage("fitnets")) == {}
