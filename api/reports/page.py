"""The contents of `report.html`, from what the service knows of a job, whatever its end."""

import base64
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from api.http.errors import Conflict, Gone, NotFound
from api.http.texts import FILTERS
from api.jobs import outputs, service
from api.jobs.curves import curves
from api.jobs.overview import named
from api.jobs.schemas import JobBody
from api.reports.charts import curve, reliability
from api.reports.compression import tables
from api.reports.previews import SHOWN, name_of
from models.database import reading
from models.records import Preview

REPORT_BYTES = 16 * 2**20
"""Largest `report.json` that is read."""
MOST_PICTURES, PICTURE_BYTES = 8, 2**20
"""Most pictures of a report, and the largest of them."""
MOST_CURVES = 24
PICTURES = ("image/png", "image/jpeg", "image/webp")
POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The file runs no script and loads nothing, wherever it is opened."""


@lru_cache(maxsize=1)
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(FILTERS)
    return environment


def report_page(key_id: str, job_id: str) -> str:
    """The report of a job that has ended, as one HTML file without scripts that loads nothing.

    Raises:
        NotFound: the job does not exist or belongs to another key.
        Conflict: the job has not ended.
    """
    with reading() as session:
        job = service.job_body(session, service.find(session, key_id, job_id))
    if not job.status.final:
        raise Conflict(f"The job {job_id} is {job.status}. Its report is available once it has ended.")
    report = _report(key_id, job_id)
    by_class = ((report.get("evaluation") or {}).get("by_class")) or {}
    values = {
        "job": job,
        "report": report,
        "result": sentence(job, report),
        "teacher": named(key_id, job.resolved.get("teacher")),
        "dataset": named(key_id, job.resolved.get("dataset")),
        "changes": class_changes(by_class, _names(key_id, job_id)),
        "confused": most_confused(by_class, _names(key_id, job_id)),
        "reliability": {
            who: reliability((by_class.get(who) or {}).get("calibration")) for who in ("student", "teacher")
        },
        "curves": _curves(key_id, job_id),
        "pictures": _pictures(key_id, job_id),
        "warnings": _warnings(key_id, job_id),
        "tables": tables(job.resolved, report),
    }
    return _templates().get_template("report.html").render(**values)


def _report(key_id: str, job_id: str) -> dict[str, Any]:
    try:
        data = outputs.small_artifact(key_id, job_id, "report.json", REPORT_BYTES)
        found = json.loads(data) if data is not None else {}
    except (NotFound, Gone, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _names(key_id: str, job_id: str) -> list[str]:
    """The names of the student's classes; empty if unknown."""
    with reading() as session:
        student = service.find(session, key_id, job_id).student or {}
    return [str(name) for name in student.get("class_names") or []]


def sentence(job: JobBody, report: dict[str, Any]) -> str:
    """The result in one sentence."""
    if job.status != "succeeded":
        why = f": {job.error.message}" if job.error else ""
        return f"The job {job.status.value if job.status != 'cancelled' else 'was cancelled'} and made no student{why}."
    summary = report.get("summary") or {}
    main, ours, theirs = summary.get("main_metric") or {}, summary.get("bytes"), summary.get("teacher_bytes")
    size = f" at {ours / theirs:.1%} of the teacher's bytes" if ours and theirs else ""
    name = str(main.get("name") or "").replace("_", " ")
    if isinstance(main.get("student"), int | float):
        if isinstance(main.get("teacher"), int | float):
            return f"The student reaches {main['student']:.4g} {name}, against {main['teacher']:.4g} of its teacher,{size}."
        return f"The student reaches {main['student']:.4g} {name}{size}."
    if isinstance(estimate := summary.get("estimated_agreement"), int | float):
        return f"The student is estimated to agree with its teacher on {estimate:.1%} of real images{size}; its accuracy was not measured."
    agreement = ((report.get("without_data") or {}).get("agreement_with_teacher")) or summary.get("agreement")
    if isinstance(agreement, int | float):
        return f"The student agrees with its teacher on {agreement:.1%} of synthesised images{size}; its accuracy was not measured."
    return f"The student was made{size}; its accuracy was not measured."


def class_changes(by_class: dict[str, Any], names: list[str]) -> list[dict[str, Any]]:
    """The share of right answers by class, of student and teacher, the largest loss first."""
    ours, theirs = ((by_class.get(who) or {}).get("recall") or [] for who in ("student", "teacher"))
    rows = []
    for at, count in enumerate(by_class.get("images") or []):
        mine = ours[at] if at < len(ours) else None
        other = theirs[at] if at < len(theirs) else None
        change = mine - other if mine is not None and other is not None else None
        rows.append({"name": _name(names, at), "images": count, "student": mine, "teacher": other, "change": change})
    return sorted(rows, key=lambda row: row["change"] if row["change"] is not None else 0.0)


def most_confused(by_class: dict[str, Any], names: list[str], most: int = 12) -> list[dict[str, Any]]:
    """The pairs of a true and a predicted class that the student confuses most often."""
    matrix = (by_class.get("student") or {}).get("confusion") or []
    other = (by_class.get("teacher") or {}).get("confusion") or []
    pairs = [
        {"true": _name(names, row), "said": _name(names, column), "student": count,
         "teacher": other[row][column] if other else None, "share": count / (sum(counts) or 1)}
        for row, counts in enumerate(matrix)
        for column, count in enumerate(counts)
        if row != column and count
    ]  # fmt: skip
    return sorted(pairs, key=lambda pair: -pair["student"])[:most]


def _name(names: list[str], at: int) -> str:
    return names[at] if at < len(names) else str(at)


def _curves(key_id: str, job_id: str) -> list[dict[str, Any]]:
    drawn = [curve(name, steps, values) for name, (steps, values) in curves(key_id, job_id).items()]
    return [one for one in drawn if one is not None][:MOST_CURVES]


def _pictures(key_id: str, job_id: str) -> list[dict[str, Any]]:
    """The newest previews of each series, as data URIs."""
    found: dict[str, dict[str, Any]] = {}
    for preview in outputs.previews(key_id, job_id).data:
        name = name_of(preview)
        small = preview.size <= PICTURE_BYTES and preview.content_type in PICTURES
        if name in found or not small or len(found) == MOST_PICTURES:
            continue
        try:
            data = outputs.small_blob(outputs.blob(Preview, key_id, job_id, preview.name), PICTURE_BYTES)
        except (NotFound, Gone):  # it has just expired
            continue
        if data is not None:
            address = f"data:{preview.content_type};base64,{base64.b64encode(data).decode()}"
            found[name] = {"name": name, "step": preview.step, "address": address, "shows": SHOWN.get(name)}
    return list(found.values())


def _warnings(key_id: str, job_id: str) -> list[str]:
    """The job's own warnings and errors, from its events."""
    events = outputs.newest_events(key_id, job_id, 500)
    return list(dict.fromkeys(event.message for event in events if event.type == "log" and event.level != "info"))[:50]
