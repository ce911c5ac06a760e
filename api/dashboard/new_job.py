"""`/jobs/new`: the form of a new job."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from api.dashboard import spec_form
from api.dashboard.job_page import body_of
from api.dashboard.rendering import HEADERS, render
from api.dashboard.visitors import CurrentVisitor, Form, PageRoute, Visitor, form_of, require
from api.datasets.service import DATASETS
from api.http.errors import Invalid
from api.http.paging import Window
from api.jobs import validation
from api.jobs.estimates import Estimate, estimates
from api.jobs.overview import lines
from api.jobs.submission import Submission
from api.teachers.service import TEACHERS
from models.database import reading
from models.spec.catalogue import known
from models.spec.job_spec import JobSpec
from models.spec.problems import problems_of
from models.spec.task_checks import TASK
from models.status import JobStatus

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Problems = list[tuple[str, str]]
SHOWN = 100
TEMPLATES: dict[str, tuple[str, dict[str, Any]]] = {
    "half": ("Half the size, no data", {"student": {"like": "teacher", "width": 0.5}}),
    "kd": (
        "Knowledge distillation with data",
        {
            "student": {"like": "teacher", "width": 0.5},
            "objectives": [
                {"name": "cross_entropy", "weight": 0.1},
                {"name": "kd", "weight": 0.9, "temperature": 4.0},
            ],
            "training": {"epochs": 30},
        },
    ),
}


def _page_values(visitor: Visitor, texts: dict[str, str]) -> dict[str, Any]:
    window = Window(SHOWN, None)
    teachers = TEACHERS.page(visitor.key_id, window, None).data if visitor.may("uploads:read") else []
    datasets = DATASETS.page(visitor.key_id, window, None).data if visitor.may("uploads:read") else []
    students, _ = lines(visitor.key_id, window, [JobStatus.SUCCEEDED])
    network = texts.get("/student/network", "")
    return {
        "texts": texts,
        "teachers": [one for one in teachers if one.status != "rejected"],
        "datasets": [one for one in datasets if one.status != "rejected"],
        "students": students,
        "networks": known("networks"),
        "sources": known("sources"),
        "procedures": known("procedures"),
        "tasks": [one for one in known("tasks") if one != TASK],
        "default_task": TASK,
        "methods": {name: known(name) for name in spec_form.ROWS},
        "rows": spec_form.ROWS,
        "training": spec_form.training_fields(),
        "budget": spec_form.budget_fields(),
        "student_fields": spec_form.method_fields("networks", network, "/student/options"),
        "method_fields": {
            name: spec_form.method_fields(kind, texts.get(f"/{name}/name", ""), f"/{name}")
            for name, kind in spec_form.METHODS.items()
        },
        "row_fields": {
            name: [
                spec_form.method_fields(name, texts.get(f"/{name}/{row}/name", ""), f"/{name}/{row}")
                for row in range(count)
            ]
            for name, count in spec_form.ROWS.items()
        },
        "templates": TEMPLATES,
    }


@router.get("/jobs/new")
async def show(
    request: Request,
    visitor: CurrentVisitor,
    template: Annotated[str, Query(max_length=20)] = "",
    again: Annotated[str, Query(max_length=64)] = "",
    teacher: Annotated[str, Query(max_length=64)] = "",
    dataset: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """The form: empty, from a template, with the spec of another job (`again`), or with a teacher or a dataset."""
    require(visitor, "jobs:read", "jobs:write")
    spec: dict[str, Any] = dict(TEMPLATES.get(template, ("", {}))[1])
    if again:
        spec = (await run_in_threadpool(body_of, visitor, again)).spec
    if teacher:
        spec["teacher"] = teacher
    if dataset:
        spec |= await run_in_threadpool(_with_dataset, visitor, dataset)
    values = await run_in_threadpool(_page_values, visitor, spec_form.texts_of(spec))
    return render(request, "new_job.html", problems=[], **values)


def _with_dataset(visitor: Visitor, identifier: str) -> dict[str, str]:
    """The fields of a spec with a dataset; for labels that only one task reads, also that task."""
    require(visitor, "uploads:read")
    _, body = DATASETS.get(visitor.key_id, identifier)
    labels = (body.findings or {}).get("labels")
    tasks = [name for name, one in known("tasks").items() if one["labels"] == labels]
    return {"dataset": identifier} | ({"task": tasks[0]} if len(tasks) == 1 else {})


@router.get("/jobs/new/fields")
async def show_fields(
    request: Request,
    visitor: CurrentVisitor,
    kind: Annotated[str, Query(pattern=r"^(objectives|transforms|sources|procedures|networks)$")],
    at: Annotated[str, Query(pattern=r"^/((objectives|transforms)/\d|source|procedure|student/options)$")],
) -> Response:
    """The fields of a method's parameters, which the page asks for when a method is chosen."""
    require(visitor, "jobs:read")
    chosen = request.query_params.get(
        f"{at.removesuffix('/options')}/{'network' if kind == 'networks' else 'name'}", ""
    )
    found = spec_form.method_fields(kind, chosen, at)
    about = known(kind).get(chosen, {})
    return render(request, "part_fields.html", fields=found, texts={}, about=about)


async def _checked(request: Request, visitor: Visitor, form: Form) -> tuple[dict[str, Any], Any, Problems]:
    """The spec of a form, what its validation found, and its problems with their places in the form."""
    written = spec_form.spec_of(form)
    if written.problems:
        return written.spec, None, written.problems
    try:
        spec = JobSpec.model_validate(written.spec)
        found = await validation.validate(request.app.state.watch, visitor.key_id, spec, 0)
    except ValidationError as error:
        return written.spec, None, [(written.place_of(one.pointer), one.message) for one in problems_of(error)]
    except Invalid as error:
        return written.spec, None, [(written.place_of(pointer), message) for pointer, message in error.errors]
    return written.spec, found, []


@router.post("/jobs/new/validate")
async def validate(request: Request, visitor: CurrentVisitor) -> Response:
    """What is wrong with the form as it is now, while one types."""
    require(visitor, "jobs:write")
    _, found, problems = await _checked(request, visitor, await form_of(request))
    expected = await run_in_threadpool(_estimated, visitor, found.resolved) if found is not None else []
    return render(request, "part_check.html", found=found, problems=problems, expected=expected)


def _estimated(visitor: Visitor, resolved: dict[str, Any]) -> list[Estimate]:
    with reading() as session:
        return estimates(session, visitor.key_id, resolved)


@router.post("/jobs/new")
async def submit(request: Request, visitor: CurrentVisitor) -> Response:
    """Submit the job, or show the form with its problems."""
    require(visitor, "jobs:read", "jobs:write")
    form = await form_of(request)
    body, found, problems = await _checked(request, visitor, form)
    if problems or found is None:
        values = await run_in_threadpool(_page_values, visitor, spec_form.sent_texts(form))
        return render(request, "new_job.html", 422, problems=problems, **values)
    submission = Submission(visitor.key_id, None, JobSpec.model_validate(body), body)
    job, _ = await request.app.state.submissions.submit(submission)
    return RedirectResponse(f"/jobs/{job.id}", 303, HEADERS)
