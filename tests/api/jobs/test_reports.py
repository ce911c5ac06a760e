"""`report.html`: complete, without scripts, loading nothing, and harmless whatever the names are."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from api.reports import page
from api.reports.charts import curve, reliability
from models.records import Artifact, Preview
from tests.api.service import User, problem

EVIL = "<script>alert(1)</script>\"'><img src=http://evil.example/x>\u202e`<img src=http://evil.example/y>`"
PIXEL = b"\x89PNG\r\n\x1a\npixel"
BY_CLASS: dict[str, Any] = {
    "images": [10, 0, 20],
    "student": {
        "recall": [0.5, None, 0.9],
        "confusion": [[5, 0, 5], [0, 0, 0], [2, 0, 18]],
        "calibration": {"count": [0, 30], "confidence": [None, 0.8], "accuracy": [None, 0.77]},
    },
    "teacher": {"recall": [0.8, None, 0.85], "confusion": [[8, 0, 2], [0, 0, 0], [3, 0, 17]], "calibration": None},
}
REPORT: dict[str, Any] = {
    "summary": {"main_metric": {"name": "accuracy", "student": 0.77, "teacher": 0.83}, "bytes": 500, "teacher_bytes": 2000, "network": "lenet5_half"},
    "evaluation": {"split": "test", "images": 30, "student": {"accuracy": 0.77}, "teacher": {"accuracy": 0.83}, "by_class": BY_CLASS},
    "notes": ["The student was evaluated on its training images."], "teacher": {"network": "lenet5"},
    "environment": {"versions": {"torch": "2.11"}, "device": "cpu", "device_name": "a processor"},
    "files": [{"name": "student.onnx", "bytes": 500, "sha256": "ab" * 32}],
}  # fmt: skip


class Loads(HTMLParser):
    """Everything that a page would load or run."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "iframe", "object", "embed"):
            self.found.append(tag)
        for name, value in attributes:
            local = (value or "").startswith(("data:image/", "#"))
            if name.startswith("on") or (name in ("src", "href", "action") and not local):
                self.found.append(f"{tag} {name}={value}")


def get(user: User, job: str) -> str:
    response = user.http.get(f"/jobs/{job}/report.html")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-disposition"].startswith("attachment")
    assert response.headers["content-security-policy"].startswith("sandbox")
    assert Loads(response.text).found == []
    return response.text


def test_the_report_of_a_finished_job_has_everything(user: User) -> None:
    spec = {"student": {"network": "lenet5_half"}, "training": {"seed": 7}}
    spec |= {"teacher": user.teacher(name="the big one"), "dataset": user.dataset()}
    job = user.job("succeeded", spec=spec, resolved=spec, student={"class_names": ["cat", "dog", "ship"]})
    user.blob(Artifact, job, "report.json", json.dumps(REPORT).encode())
    user.metrics(job, "loss", [2.0, 1.0, 0.5])
    for step in (1, 2):
        user.blob(Preview, job, f"samples-{step:08d}.png", PIXEL, step=step, content_type="image/png")
    text = get(user, job)
    assert "from <bdi>the big one</bdi> (<bdi>lenet5</bdi>), with the dataset <bdi>digits</bdi>" in text
    assert "reaches 0.77 accuracy, against 0.83 of its teacher, at 25.0% of the teacher" in text
    for words in ("evaluated on its training images", "cat", "-30.0 points", "+5.0 points", "Calibration", "loss", "step 2", "Seed 7", "2.11", "ab" * 32, "test"):  # fmt: skip
        assert words in text, words
    assert "step 1<" not in text and text.count("<img") == 1
    assert re.search(r"<th><bdi>cat</bdi></th><td><bdi>ship</bdi></td><td class=\"n\">5</td>", text)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_failed_and_cancelled_jobs_have_a_report_too(user: User, status: str) -> None:
    error = {"code": "out_of_memory", "message": "The engine needed more memory.", "hint": "Set a smaller batch_size."}
    job = user.job(status, error=error if status == "failed" else None)
    user.metrics(job, "loss", [2.0, 1.0])
    user.events(job, 1, "log")
    text = get(user, job)
    assert "made no student" in text and "Curves" in text
    assert ("Set a smaller batch_size." in text) == (status == "failed")


def test_a_job_that_has_not_ended_has_none(user: User) -> None:
    problem(user.http.get(f"/jobs/{user.job('running')}/report.html"), 409)


def test_strangers_texts_are_harmless_in_a_report(user: User) -> None:
    evil: dict[str, Any] = json.loads(json.dumps(REPORT).replace("lenet5", "EVIL"))
    evil["notes"] = [EVIL]
    evil["summary"]["main_metric"]["name"] = EVIL
    evil["evaluation"]["student"][EVIL] = 0.5
    evil["files"][0]["name"] = EVIL
    values = {"labels": {EVIL: EVIL}, "spec": {EVIL: EVIL}, "resolved": {"teacher": EVIL, "student": {"network": EVIL}}}
    job = user.job("succeeded", name=EVIL, student={"class_names": [EVIL] * 3}, **values)
    user.blob(Artifact, job, "report.json", json.dumps(evil).encode())
    user.blob(Preview, job, f"{EVIL.replace('/', '')}-00000001.png", PIXEL, step=1, content_type="image/png")
    user.blob(Preview, job, "page-00000001.html", b"<script>", step=1, content_type="text/html")
    user.metrics(job, EVIL, [1.0, 2.0])
    assert "\u202e" not in get(user, job)


def test_a_damaged_report_leaves_the_rest(user: User) -> None:
    job = user.job("succeeded")
    user.blob(Artifact, job, "report.json", b"{no json")
    assert "its accuracy was not measured" in get(user, job)


def test_class_changes_and_confusions_are_sorted() -> None:
    names = ["cat", "dog"]
    changes = page.class_changes(BY_CLASS, names)
    assert [(row["name"], row["change"]) for row in changes] == [("cat", pytest.approx(-0.3)), ("dog", None), ("2", pytest.approx(0.05))]  # fmt: skip
    confused = page.most_confused(BY_CLASS, names)
    assert [(pair["true"], pair["said"], pair["student"], pair["teacher"]) for pair in confused] == [("cat", "2", 5, 2), ("2", "cat", 2, 3)]  # fmt: skip
    assert confused[0]["share"] == 0.5


def test_charts_leave_out_what_is_not_finite() -> None:
    assert curve("loss", [1, 2], [None, 1.0]) is None
    drawn = curve("loss", [1, 2, 3], [1.0, float("nan"), 3.0])
    assert drawn is not None and len(drawn["path"].split()) == 2 and (drawn["low"], drawn["high"]) == (1.0, 3.0)
    assert reliability(None) is None
    [bar] = reliability(BY_CLASS["student"]["calibration"]) or []
    assert (bar["right"], bar["count"]) == (0.77, 30) and bar["height"] == pytest.approx(154)
