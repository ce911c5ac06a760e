"""Checks of a job against its task, and the defaults of each task."""

from typing import Any

import pytest

from models.spec.catalogue import known
from models.spec.job_spec import DatasetFacts, DatasetSpec, Facts, JobSpec, TeacherFacts, TeacherSpec, check, resolve
from tests.models.spec.specs import CONTRACT, DATASET, OTHER, TEACHER, dataset_facts

OTHERS = ("multi_label", "regression", "embedding")
KIND = {
    "classification": "class", "multi_label": "multi_label", "regression": "target", "embedding": "class", "segmentation": "mask",
    "depth": "depth", "detection": "boxes",
}  # fmt: skip
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
def test_every_task_has_suitable_default_objectives(task: str) -> None:
    body = TAUGHT | {"task": task}
    full = resolved(body, facts(task))
    assert (full["task"], full["student"]["classes"]) == (task, 3)
    assert [one["name"] for one in full["objectives"]] == [
        one["name"] for one in known("tasks")[task]["objective_defaults"]
    ]
    assert found(body, facts(task)) == {}


@pytest.mark.parametrize("task", known("tasks"))
def test_without_a_teacher_the_default_objective_is_the_ground_truth(task: str) -> None:
    student = {"network": "lenet5_half", "input": CONTRACT} | ({"classes": 8} if task == "embedding" else {})
    body = {"task": task, "student": student, "dataset": DATASET}
    full = resolved(body, facts(task, teacher=False))
    (objective,) = full["objectives"]
    assert (objective["name"], objective["weight"]) == (known("tasks")[task]["ground_truth"]["name"], 1.0)
    assert full["student"]["classes"] == (8 if task == "embedding" else 3)
    assert found(body, facts(task, teacher=False)) == {}


def test_the_length_of_an_embedding_has_no_default() -> None:
    body = {"task": "embedding", "student": {"network": "mlp", "input": CONTRACT}, "dataset": DATASET}
    assert set(found(body, facts("embedding", teacher=False))) == {"/student/classes"}


def test_identities_are_not_compared_with_the_outputs_of_an_embedding() -> None:
    """An evaluation dataset may have other identities, and another number of them."""
    given = facts("embedding", outputs=751)
    body = TAUGHT | {"task": "embedding", "evaluation": {"dataset": OTHER}}
    assert found(body, Facts(given.teacher, given.dataset, facts("embedding", outputs=750).dataset)) == {}


@pytest.mark.parametrize("task", OTHERS)
def test_objectives_for_classification_are_refused_for_other_tasks(task: str) -> None:
    body = TAUGHT | {"task": task, "objectives": ["hint", "dkd", "logit_distance"]}
    assert found(body, facts(task)) == {
        "/objectives/1": f"dkd is for classification, not for the task {task}; remove it"
    }


def test_kd_supports_multi_label_with_sigmoid_outputs() -> None:
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
def test_a_synthesiser_for_classification_is_refused_for_other_tasks(task: str) -> None:
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
    assert found(body, given) == {"/source": f"'dafl' is for {suited}, not for the task {task}; train on a dataset"}


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_the_per_class_sampler_needs_classes(task: str) -> None:
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
def test_a_dataset_with_another_kind_of_label_is_refused(task: str, labels: str, fitting: str) -> None:
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


def test_findings_of_earlier_versions_mean_class_labels() -> None:
    assert dataset_facts().labels == "class"


def test_another_number_of_targets_is_refused() -> None:
    body = TAUGHT | {"task": "regression", "objectives": ["target_error"], "student": {"network": "mlp", "classes": 2}}
    assert set(found(body, facts("regression"))) == {"/objectives/0", "/student/classes"}


def test_one_output_is_enough_unless_one_of_several_classes_is_chosen() -> None:
    body = {"student": {"network": "mlp", "input": CONTRACT, "classes": 1}, "dataset": DATASET}
    for task in known("tasks"):
        problems = found(body | {"task": task}, facts(task, outputs=1, teacher=False))
        assert ("/student/classes" in problems) == (known("tasks")[task]["least_outputs"] > 1), task


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match="task"):
        JobSpec.model_validate(TAUGHT | {"task": "panoptic"})


def test_uploads_of_other_tasks() -> None:
    assert TeacherSpec.model_validate({"network": "lenet5", "classes": 1, "input": CONTRACT}).classes == 1
    assert DatasetSpec.model_validate({"options": {"labels": "target"}}).options.labels == "target"
    assert DatasetSpec.model_validate({}).options.labels == "class"
    with pytest.raises(ValueError, match="labels"):
        DatasetSpec.model_validate({"options": {"labels": "keypoints"}})


@pytest.mark.parametrize("task", ["segmentation", "depth"])
def test_maps_are_augmented_with_their_images_and_are_not_synthesised(task: str) -> None:
    full = resolved(TAUGHT | {"task": task}, facts(task))
    assert full["source"]["augmentation"] == "scale_crop_flip"
    own = TAUGHT | {"task": task, "source": {"name": "dataset", "augmentation": "none"}}
    assert resolved(own, facts(task))["source"]["augmentation"] == "none"
    body = {"teacher": TEACHER, "student": {"network": "fpn"}, "task": task, "source": "dafl", "objectives": ["hint"]}
    problems = found(body, Facts(TeacherFacts("fpn", 3, CONTRACT), None, None))
    assert "use `substitute` with real images" in problems["/source"]


@pytest.mark.parametrize("task", ["segmentation", "depth"])
def test_maps_without_labels_are_learnt_from_the_teacher_alone(task: str) -> None:
    given = facts(task, outputs=0, labels="none", per_class={}, class_names=[])
    full = resolved(TAUGHT | {"task": task}, given)
    assert full["source"]["name"] == "substitute" and found(TAUGHT | {"task": task}, given) == {}
    (objective,) = full["objectives"]
    assert objective["name"] == {"segmentation": "pixel_wise", "depth": "depth_error"}[task]
