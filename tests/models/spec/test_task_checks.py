"""What does not suit a job's task is refused with its place; what suits it has defaults of its own."""

from typing import Any

import pytest

from models.spec.catalogue import known
from models.spec.job_spec import DatasetFacts, DatasetSpec, Facts, JobSpec, TeacherFacts, TeacherSpec, check, resolve
from tests.models.spec.specs import CONTRACT, DATASET, OTHER, TEACHER, dataset_facts

OTHERS = ("multi_label", "regression", "embedding")
KIND = {"classification": "class", "multi_label": "multi_label", "regression": "target", "embedding": "class"}
TAUGHT = {"teacher": TEACHER, "student": {"network": "lenet5_half"}, "dataset": DATASET}


def facts(task: str, outputs: int = 3, teacher: bool = True, **other: Any) -> Facts:
    found = {**(dataset_facts(outputs).findings or {}), "labels": KIND[task]} | other
    return Facts(TeacherFacts("lenet5", 3, CONTRACT) if teacher else None, DatasetFacts(found), None)


def resolved(body: dict[str, Any], given: Facts) -> dict[str, Any]:
    full = resolve(JobSpec.model_validate(body), given)
    assert resolve(JobSpec.model_validate(full), given) == full
    return full


def found(body: dict[str, Any], given: Facts) -> dict[str, str]:
    return {problem.pointer: problem.message for problem in check(resolved(body, given), given)}


@pytest.mark.parametrize("task", known("tasks"))
def test_a_job_of_every_task_has_objectives_that_suit_it(task: str) -> None:
    body = TAUGHT | {"task": task}
    full = resolved(body, facts(task))
    assert (full["task"], full["student"]["classes"]) == (task, 3)
    assert [one["name"] for one in full["objectives"]] == [
        one["name"] for one in known("tasks")[task]["objective_defaults"]
    ]
    assert found(body, facts(task)) == {}


@pytest.mark.parametrize("task", known("tasks"))
def test_without_a_teacher_the_ground_truth_is_learnt(task: str) -> None:
    student = {"network": "lenet5_half", "input": CONTRACT} | ({"classes": 8} if task == "embedding" else {})
    body = {"task": task, "student": student, "dataset": DATASET}
    full = resolved(body, facts(task, teacher=False))
    (objective,) = full["objectives"]
    assert (objective["name"], objective["weight"]) == (known("tasks")[task]["ground_truth"]["name"], 1.0)
    assert full["student"]["classes"] == (8 if task == "embedding" else 3)
    assert found(body, facts(task, teacher=False)) == {}


def test_an_embedding_has_no_length_by_itself() -> None:
    body = {"task": "embedding", "student": {"network": "mlp", "input": CONTRACT}, "dataset": DATASET}
    assert set(found(body, facts("embedding", teacher=False))) == {"/student/classes"}


def test_an_embeddings_identities_are_no_outputs() -> None:
    """A set for evaluation may hold other identities, of another number."""
    given = facts("embedding", outputs=751)
    body = TAUGHT | {"task": "embedding", "evaluation": {"dataset": OTHER}}
    assert found(body, Facts(given.teacher, given.dataset, facts("embedding", outputs=750).dataset)) == {}


@pytest.mark.parametrize("task", OTHERS)
def test_objectives_of_classes_are_refused(task: str) -> None:
    body = TAUGHT | {"task": task, "objectives": ["hint", "dkd", "logit_distance"]}
    assert found(body, facts(task)) == {
        "/objectives/1": f"dkd is for classification, not for the task {task}; leave it out"
    }


def test_kd_has_a_form_for_several_labels() -> None:
    body: dict[str, Any] = TAUGHT | {"task": "multi_label", "objectives": ["kd"]}
    words = "kd is for classification, not for the task multi_label; set `outputs` to 'sigmoid'"
    assert found(body, facts("multi_label")) == {"/objectives/0": words}
    body["objectives"] = [{"name": "kd", "outputs": "sigmoid"}]
    assert found(body, facts("multi_label")) == {}
    assert set(found(TAUGHT | {"objectives": body["objectives"]}, facts("classification"))) == {"/objectives/0"}


@pytest.mark.parametrize("task", OTHERS)
def test_objectives_within_a_procedure_are_refused(task: str) -> None:
    body = TAUGHT | {"task": task, "procedure": {"name": "two_stage", "first": ["hint"], "second": ["cross_entropy"]}}
    assert set(found(body, facts(task))) == {"/procedure/second/0"}


@pytest.mark.parametrize("task", ["regression", "embedding"])
def test_a_synthesiser_of_classes_is_refused(task: str) -> None:
    body = {
        "teacher": TEACHER,
        "student": {"network": "lenet5_half"},
        "task": task,
        "source": "dafl",
        "objectives": ["hint"],
    }
    given, suited = (
        Facts(TeacherFacts("lenet5", 3, CONTRACT), None, None),
        " or ".join(known("sources")["dafl"]["tasks"]),
    )
    assert found(body, given) == {
        "/source": f"'dafl' makes batches for {suited}, not for the task {task}; give a dataset"
    }


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_batches_by_class_need_classes(task: str) -> None:
    body = TAUGHT | {"task": task, "source": {"name": "dataset", "sampler": "per_class"}, "objectives": ["hint"]}
    assert set(found(body, facts(task))) == {"/source/sampler"}


@pytest.mark.parametrize(
    ("task", "labels", "fitting"),
    [
        ("classification", "target", "regression"),
        ("regression", "class", "classification or embedding"),
        ("embedding", "multi_label", "multi_label"),
        ("multi_label", "target", "regression"),
    ],
)
def test_a_dataset_of_other_labels_is_refused(task: str, labels: str, fitting: str) -> None:
    problems = found(TAUGHT | {"task": task}, facts(task, labels=labels))
    assert f"set task to {fitting}, or" in problems["/dataset"]
    given = facts(task)
    other = Facts(given.teacher, given.dataset, facts(task, labels=labels).dataset)
    assert "/evaluation/dataset" in found(TAUGHT | {"task": task, "evaluation": {"dataset": OTHER}}, other)


@pytest.mark.parametrize("task", ["classification", "multi_label"])
def test_images_without_labels_serve_a_source_that_ignores_labels(task: str) -> None:
    given = facts(task, outputs=0, labels="none", per_class={}, class_names=[])
    body = TAUGHT | {"task": task}
    assert found(body, given) == {}
    full = resolved(body, given)
    assert (full["source"]["name"], full["evaluation"], full["student"]["classes"]) == ("substitute", None, 3)
    assert set(found(body | {"source": {"name": "dataset"}}, given)) == {"/dataset"}
    assert set(found(body | {"evaluation": {"dataset": DATASET}}, given)) == {"/evaluation/dataset"}


def test_a_dataset_of_before_names_a_class_for_each_image() -> None:
    assert dataset_facts().labels == "class"


def test_targets_of_another_number_are_refused() -> None:
    body = TAUGHT | {"task": "regression", "objectives": ["target_error"], "student": {"network": "mlp", "classes": 2}}
    assert set(found(body, facts("regression"))) == {"/objectives/0", "/student/classes"}


def test_one_output_is_enough_for_all_but_classes() -> None:
    body = {"student": {"network": "mlp", "input": CONTRACT, "classes": 1}, "dataset": DATASET}
    for task in known("tasks"):
        problems = found(body | {"task": task}, facts(task, outputs=1, teacher=False))
        assert ("/student/classes" in problems) == (task == "classification"), task


def test_a_task_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="task"):
        JobSpec.model_validate(TAUGHT | {"task": "segmentation"})


def test_uploads_of_other_tasks() -> None:
    assert TeacherSpec.model_validate({"network": "lenet5", "classes": 1, "input": CONTRACT}).classes == 1
    assert DatasetSpec.model_validate({"options": {"labels": "target"}}).options.labels == "target"
    assert DatasetSpec.model_validate({}).options.labels == "class"
    with pytest.raises(ValueError, match="labels"):
        DatasetSpec.model_validate({"options": {"labels": "boxes"}})
