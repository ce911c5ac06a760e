"""A student's budget in the form of a new job, and what became of it and of the transforms on the job's page and in its report."""

import json
import re
from typing import Any

import pytest

from api.dashboard import spec_form
from api.dashboard.visitors import Form
from models.records import Artifact
from tests.api.dashboard.browsers import Browser
from tests.api.dashboard.test_pages import EVIL, require_harmless, summary
from tests.api.service import User

BUDGET = {"file": "onnx", "bytes": 200_000, "milliseconds": 2.5, "batch": 4, "threads": 1, "allow": ["int8", "width"]}
TRIED = [
    {"rounded": False, "way": None, "step": 32, "bytes": 900_000, "milliseconds": 4.5},
    {"rounded": True, "way": "width", "step": 16, "bytes": 150_111, "milliseconds": 1.25},
]
ENDED = {"name": "student.onnx", "bytes": 151_222, "milliseconds": 1.375, "batch": 4, "threads": 1, "kept": True}
TRANSFORMED = {
    "of": [
        {"name": "prune", "sparsity": 0.75, "sparsity_by_layer": {"conv1": 0.5}},
        {"name": "int8", "bits": {"conv1": 8, "fc": 2}, "activation_bits": 8, "rounded_activations": 11},
    ],
    "float32_student_bytes": 604_888,
    "times_smaller": {"student.onnx": 4.0, "student.packed.safetensors": 8.5},
    "times_smaller_than_teacher": {"student.onnx": 16.25},
    "onnx": {"evaluation": {"accuracy": 0.8125}, "milliseconds": 0.375, "float32_milliseconds": 0.625, "float32_bytes": 610_333},
}  # fmt: skip
FILES = [{"name": "student.onnx", "bytes": 151_222}, {"name": "student.packed.safetensors", "bytes": 70_999}]


def compressed(user: User, budget: dict[str, Any], report: dict[str, Any]) -> str:
    """A job with a budget and transforms that has succeeded."""
    resolved = {"teacher": None, "student": {"like": "teacher", "budget": budget}}
    job = user.job("succeeded", resolved=resolved)
    user.blob(Artifact, job, "report.json", json.dumps({"summary": summary()} | report).encode())
    return job


def test_a_form_describes_a_budget_and_a_spec_fills_in_the_form() -> None:
    at = spec_form.BUDGET
    pairs = [("/student/network", ""), (f"{at}/bytes", "200000"), (f"{at}/milliseconds", "2.5"), (f"{at}/batch", "4"),
             (f"{at}/threads", "1"), (f"{at}/file", "onnx"), (f"{at}/allow[]", "int8"), (f"{at}/allow[]", "width")]  # fmt: skip
    spec = spec_form.spec_of(Form(pairs)).spec
    assert spec == {"student": {"budget": BUDGET}}
    texts = spec_form.texts_of(spec)
    assert texts[f"{at}/milliseconds"] == "2.5" and texts[f"{at}/allow"] == '["int8", "width"]'
    assert spec_form.FURTHER not in texts
    named = {"student": {"network": "lenet5_half", "budget": {"bytes": 9, "chosen": {"bytes": 8}}}}
    assert list(spec_form.texts_of(named)) == [spec_form.FURTHER]  # the form has no field for what was chosen


def test_the_form_offers_a_budget_and_checks_it(visitor: Browser, owner: User) -> None:
    teacher = owner.teacher()
    page = visitor.get("/jobs/new").text
    for name in ("file", "bytes", "milliseconds", "batch", "threads", "allow[]"):
        assert f'name="/student/budget/{name}"' in page, name
    data = {"/teacher": teacher, "/student/budget/bytes": "200000", "/student/budget/allow[]": "int8"}
    assert "The spec is valid." in visitor.post("/jobs/new/validate", data).text
    refused = visitor.post("/jobs/new", data | {"/student/budget/bytes": "few"})
    assert refused.status_code == 422 and 'data-pointer="/student/budget/bytes"' in refused.text
    assert re.search(r'name="/student/budget/allow\[\]" value="int8" checked', refused.text)
    assert not re.search(r'value="width" checked', refused.text)


@pytest.mark.parametrize("where", ["page", "report"])
def test_what_was_asked_planned_and_measured_is_shown(visitor: Browser, owner: User, where: str) -> None:
    budget = BUDGET | {"chosen": TRIED[1] | {"tried": TRIED}}
    report = {"budget": ENDED, "transformed": TRANSFORMED, "student": {"files": FILES}, "evaluation": {"student": {"accuracy": 0.84}}}  # fmt: skip
    job = compressed(owner, budget, report)
    text = visitor.get(f"/jobs/{job}{'/report.html' if where == 'report' else ''}").text
    rows = [re.findall(r"<bdi>(.*?)</bdi>", row) for row in re.findall(r"<tr>.*?</tr>", text, re.DOTALL)]
    for row in (
        ["bytes of student.onnx", "200,000", "150,111", "151,222"],
        ["milliseconds for a batch of 4, CPU threads: 1", "2.5", "1.25", "1.375"],
        ["16 of 32 parts of the channels (width) and int8", "150,111", "1.25"],
        ["student.onnx", "151,222", "4", "16.2"],
        ["student.packed.safetensors", "70,999", "8.5", "–"],
        ["prune", "–", "–", "75.0 %"],
        ["int8", "2 to 8", "8, 11 rounded", "–"],
        ["conv1", "8", "50.0 %"],
        ["accuracy", "0.8125", "0.84", "–"],
        ["bytes", "151,222", "–", "610,333"],
    ):
        assert row in rows, row
    assert "The finished student keeps its budget." in text and "604,888 bytes in float32" in text


def test_a_job_that_waits_shows_what_was_asked(visitor: Browser, owner: User) -> None:
    job = owner.job("queued", resolved={"teacher": None, "student": {"budget": BUDGET}})
    text = visitor.get(f"/jobs/{job}").text
    assert "Allowed: int8, width. Nothing has been chosen yet." in text
    assert "<bdi>200,000</bdi>" in text


def test_jobs_with_one_budget_are_runs_of_one_spec_whatever_was_measured(visitor: Browser, owner: User) -> None:
    jobs = []
    for seed in (0, 1):
        budget = BUDGET | {"chosen": {"tried": [{"milliseconds": 1.25 + seed}]}}
        jobs.append(owner.job("succeeded", resolved={"student": {"budget": budget}, "training": {"seed": seed}}))
    page = visitor.get(f"/compare?job={jobs[0]}&job={jobs[1]}").text
    assert "Over seeds" in page and "0 of 2" in page and "/student/budget/chosen" not in page


def test_texts_of_strangers_in_tables_are_harmless(visitor: Browser, owner: User) -> None:
    chosen = {"way": EVIL, "step": EVIL, "tried": [{"way": EVIL}, EVIL]}
    budget = dict.fromkeys(BUDGET, EVIL) | {"allow": [EVIL], "chosen": chosen}
    of = [{"name": EVIL, "bits": {EVIL: EVIL}, "ranks": {EVIL: [EVIL]}, "sparsity": EVIL}, EVIL]
    transformed = {"of": of, "times_smaller": {EVIL: EVIL}, "onnx": {"evaluation": {EVIL: 0.5}}}
    files = [{"name": EVIL, "bytes": EVIL}]
    job = compressed(owner, budget, {"budget": {"name": EVIL}, "transformed": transformed, "student": {"files": files}})
    require_harmless(visitor.get(f"/jobs/{job}").text)
    assert "<script" not in visitor.get(f"/jobs/{job}/report.html").text
