"""Checks of a job against its procedure, with pointers."""

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
    found_messages: dict[str, str] = {}
    for problem in check(full, facts):
        found_messages[problem.pointer] = "; ".join(
            filter(None, (found_messages.get(problem.pointer), problem.message))
        )
    return found_messages


def test_a_search_needs_held_out_images() -> None:
    body = TAUGHT | {"procedure": "architecture_search"}
    words = "architecture_search needs labelled images held out of a dataset"
    assert found(body) == {"/training/validation_fraction": f"must be greater than 0: {words}"}
    assert found(body | HELD_OUT) == {}
    assert found(body | {"dataset": None}) == {"/procedure": f"{words}, and the source 'dafl' provides none"}
    assert found(body | {"source": "substitute"}) == {
        "/procedure": f"{words}, and the source 'substitute' provides none"
    }


def test_a_greedy_route_needs_held_out_images_and_an_equal_one_does_not() -> None:
    problems = found(ALONE | GREEDY)
    assert list(problems) == ["/training/validation_fraction"]
    assert problems["/training/validation_fraction"].startswith(
        "must be greater than 0: route with `choice` = 'greedy'"
    )
    assert found(ALONE | GREEDY | HELD_OUT) == {}
    assert found(ALONE | {"procedure": "route"}) == {}


def test_a_procedure_refuses_tasks_without_its_metric() -> None:
    search = TAUGHT | HELD_OUT | {"procedure": "architecture_search"}
    assert found(search, "regression") == {
        "/procedure": "architecture_search is for classification or multi_label or embedding, not for the task regression"
    }
    assert found(search, "multi_label") == {}
    greedy = {"/procedure/choice": "route with `choice` = 'greedy' is for classification, not for the task multi_label"}
    assert found(ALONE | GREEDY | HELD_OUT, "multi_label") == greedy


def test_a_search_supports_the_tasks_whose_main_metric_is_better_if_higher() -> None:
    of_rows = known("tasks").keys() - {"segmentation", "depth", "detection"}  # it slices channels of a row's classifier
    suited = {name for name in of_rows if known("tasks")[name]["higher_is_better"]}
    assert set(known("procedures")["architecture_search"]["needs"]["tasks"]) == suited


def test_objectives_with_peers_need_a_cohort() -> None:
    objectives = ["cross_entropy", "mutual"]
    words = "mutual needs other members of a cohort, and the job trains one student; set the procedure to `mutual`"
    assert found(TAUGHT | {"objectives": objectives}) == {"/objectives/1": words}
    assert found(TAUGHT | {"objectives": objectives, "procedure": "mutual"}) == {}


def two_stage(preset: str, **values: Any) -> dict[str, Any]:
    return {"procedure": {"name": "two_stage", "preset": preset, **values}}


def test_a_preset_for_another_task_is_refused() -> None:
    body = TAUGHT | two_stage("saputra", guided="relu3", hint="relu3")
    assert found(body, "regression") == {}
    problems = found(body)
    assert list(problems) == ["/procedure/preset"]
    assert problems["/procedure/preset"].startswith("adds an objective that does not fit this job: attentive_")
    assert "is for regression, not for the task classification" in problems["/procedure/preset"]
    assert list(found(TAUGHT | two_stage("saputra", first=["hint"]))) == ["/procedure/preset"]
    assert list(found(TAUGHT | two_stage("saputra", second=["kd"]))) == ["/procedure/preset"]
    assert found(TAUGHT | two_stage("saputra", first=["hint"], second=["kd"])) == {}


def test_objectives_of_a_preset_are_checked_too() -> None:
    untaught = found(ALONE | two_stage("fitnets"))
    assert list(untaught) == ["/procedure/preset"]
    assert "this job: hint needs a teacher, and the job has none" in untaught["/procedure/preset"]
    unlabelled = found(TAUGHT | two_stage("fitnets") | {"dataset": None})
    assert list(unlabelled) == ["/procedure/preset"]
    assert "this job: cross_entropy needs labels" in unlabelled["/procedure/preset"]
    assert found(TAUGHT | two_stage("fitnets")) == {}
