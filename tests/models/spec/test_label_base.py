"""A dataset whose labels begin at 1 is recognised by its empty class 0."""

from dataclasses import replace

import pytest

from models.spec.job_spec import DatasetFacts, Facts, JobSpec, check, resolve
from tests.models.spec.specs import DATASET, FACTS, TEACHER, teacher_facts


def complaints(counts):
    findings = FACTS.dataset.findings | {
        "classes": len(counts),
        "class_names": [str(number) for number in range(len(counts))],
        "per_class": {"train": counts},
        "labels": "class",
    }
    facts = Facts(replace(teacher_facts, classes=10), DatasetFacts(findings), None)
    spec = JobSpec.model_validate({"teacher": TEACHER, "dataset": DATASET, "student": {"network": "lenet5_half"}})
    return " ".join(problem.message for problem in check(resolve(spec, facts), facts))


def test_labels_from_1_are_named():
    words = complaints([0, *[9] * 10])
    assert "class 0 of the dataset has no image, so its labels seem to begin at 1 (1 to 10): subtract 1" in words


@pytest.mark.parametrize("counts", [[9] * 11, [0, 0, *[9] * 9], [0, *[9] * 11]])
def test_other_counts_are_not(counts):
    words = complaints(counts)
    assert "compares logits" in words and "begin at 1" not in words


def test_the_contract_is_checked_unless_the_job_says_otherwise():
    spec = {"teacher": TEACHER, "dataset": DATASET, "student": {"network": "lenet5_half"}}
    assert resolve(JobSpec.model_validate(spec), FACTS)["contract"] == "check"
    assert resolve(JobSpec.model_validate(spec | {"contract": "auto"}), FACTS)["contract"] == "auto"
    with pytest.raises(ValueError, match="contract"):
        JobSpec.model_validate(spec | {"contract": "maybe"})
