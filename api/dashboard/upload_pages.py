"""`/uploads`: teachers, datasets and files; sending them, and what their inspections found."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from api.dashboard.rendering import DOWNLOAD_POLICY, HEADERS, render
from api.dashboard.schema_fields import fields, typed_values
from api.dashboard.shared_pages import FRESH_SECONDS, SharedPages
from api.dashboard.visitors import CurrentVisitor, Form, PageRoute, Visitor, form_of, require
from api.datasets import service as datasets
from api.datasets.service import DATASETS, samples
from api.files.service import FILES
from api.http.downloads import serve
from api.http.errors import Invalid, NotFound
from api.http.paging import Window
from api.teachers import service as teachers
from api.teachers.service import TEACHERS
from api.uploads.exchange import receive
from api.uploads.service import UploadBody, Uploads
from models.spec.catalogue import choices, known, part
from models.spec.job_spec import DatasetSpec, FileSpec, TeacherSpec
from models.spec.problems import problems_of
from models.status import UploadStatus

router = APIRouter(prefix="/uploads", route_class=PageRoute, include_in_schema=False)
KINDS: dict[str, Uploads[Any, Any]] = {"teachers": TEACHERS, "datasets": DATASETS, "files": FILES}
PREFIXES = {"tch": "teachers", "dts": "datasets", "fil": "files"}
Identifier = Annotated[str, Path(pattern=r"^(tch|dts|fil)_[0-9a-f]{32}$")]
SHOWN = 100
SHOWN_ABOVE = ("per_class", "samples", "warnings")
LAST = ("taps", "renamed", "recognised")
"""Findings that have a place of their own on the page, and long ones, which come after the others."""
OPTIONS = "/options"
"""Pointer of a dataset's options in its spec; names of the form's fields begin with it."""
RANGE_BYTES = 16 << 20
"""Bytes of a range in which the page sends a larger file; a broken connection costs at most one."""


def uploads_of(identifier: str) -> Uploads[Any, Any]:
    """The service of the kind of an id."""
    return KINDS[PREFIXES[identifier[:3]]]


def _lists(visitor: Visitor) -> dict[str, Any]:
    window = Window(SHOWN, None)
    return {kind: uploads.page(visitor.key_id, window, None).data for kind, uploads in KINDS.items()}


@router.get("")
async def show_all(request: Request, visitor: CurrentVisitor) -> Response:
    """All uploads, and the forms to send others."""
    require(visitor, "uploads:read")
    lists = await run_in_threadpool(_lists, visitor)
    networks = sorted(known("networks"))
    return render(
        request, "uploads.html", lists=lists, networks=networks, kinds=choices("file_kinds"), range_bytes=RANGE_BYTES,
        options=fields(part("dataset_options")["parameters"], OPTIONS), texts={},
    )  # fmt: skip


@router.get("/{identifier}")
async def show(request: Request, visitor: CurrentVisitor, identifier: Identifier) -> Response:
    """One upload and what its inspection found."""
    require(visitor, "uploads:read")
    uploads, polled = uploads_of(identifier), "hx-request" in request.headers
    name = "upload", visitor.key_id, identifier
    pages: SharedPages = request.app.state.pages
    seconds = FRESH_SECONDS if polled else 0.0
    _, body = await pages.read(name, lambda: uploads.get(visitor.key_id, identifier), seconds)
    template = "part_upload.html" if polled else "upload.html"
    findings = body.findings or {}
    counts = class_counts(findings)
    return render(
        request, template, upload=body, kind=uploads.kind, findings=_ordered(findings, body), counts=counts,
        recognised=findings.get("recognised"), warnings=findings.get("warnings") or [],
        sheet=sheet_of(findings) if body.status == UploadStatus.READY else None,
    )  # fmt: skip


def _ordered(findings: dict[str, Any], body: UploadBody) -> dict[str, Any]:
    """What was found and is not shown above it, the long last."""
    own = ("network", "classes", "class_names", "input") if body.status == UploadStatus.READY else ()
    above = (*SHOWN_ABOVE, *(name for name in own if hasattr(body, name)))
    rest = {name: findings[name] for name in sorted(findings, key=LAST.__contains__) if name not in above}
    return {name: value for name, value in rest.items() if value not in (None, "", [], {})}


def class_counts(findings: dict[str, Any]) -> dict[str, Any] | None:
    """The number of images by class and split, and the largest of these numbers; None without classes."""
    splits = findings.get("per_class")
    if not isinstance(splits, dict) or not splits:
        return None
    names = [str(name) for name in findings.get("class_names") or []]
    longest = max(len(each) for each in splits.values())
    rows = [
        (names[at] if at < len(names) else str(at), [each[at] if at < len(each) else 0 for each in splits.values()])
        for at in range(longest)
    ]
    return {"splits": list(splits), "rows": rows, "most": max([1, *(max(each, default=0) for each in splits.values())])}


def sheet_of(findings: dict[str, Any]) -> dict[str, Any] | None:
    """The classes of the rows of the sheet of images, by name; None without a sheet."""
    found = findings.get("samples")
    if not isinstance(found, dict):
        return None
    names = [str(name) for name in findings.get("class_names") or []]
    return {"rows": [names[at] if at < len(names) else str(at) for at in found.get("rows") or []]}


@router.get("/{identifier}/samples.png")
def show_samples(request: Request, visitor: CurrentVisitor, identifier: Identifier) -> Response:
    """Some images of a dataset."""
    require(visitor, "uploads:read")
    if uploads_of(identifier) is not DATASETS:
        raise NotFound("There is no such page.")
    response = serve(request, samples(visitor.key_id, identifier))
    response.headers.update(DOWNLOAD_POLICY)
    return response


@router.post("/{kind}")
async def create(request: Request, visitor: CurrentVisitor, kind: str) -> Response:
    """Create a record; answers with JSON, since the page's script then sends the bytes."""
    require(visitor, "uploads:write")
    if kind not in KINDS:
        raise NotFound(f"There are no uploads of the kind {kind}.")
    form = await form_of(request)
    try:
        values = await run_in_threadpool(_values, visitor, kind, form)
    except ValidationError as error:
        found = [(problem.pointer, problem.message) for problem in problems_of(error)]
        raise Invalid(found) from error
    body = await run_in_threadpool(KINDS[kind].create, visitor.key_id, values)
    address = f"/uploads/{body.id}"
    addresses = {"page": address, "content": f"{address}/content", "received": f"{address}/received"}
    return JSONResponse({"id": body.id, **addresses, **_received(body)}, 201, HEADERS)


def _received(body: UploadBody) -> dict[str, Any]:
    """How much of an upload has arrived."""
    return {"status": body.status, "bytes": body.received}


def _values(visitor: Visitor, kind: str, form: Form) -> dict[str, Any]:
    """The columns of a new upload, from the fields of its form."""
    given = {name: text for name, text in ((name, text.strip()) for name, text in form.items()) if text}
    name = given.get("name")
    if kind == "datasets":
        options = typed_values(part("dataset_options")["parameters"], given, OPTIONS)
        return datasets.values_of(DatasetSpec.model_validate({"name": name, "options": options}))
    if kind == "files":
        spec = FileSpec.model_validate({"name": name, "kind": given.get("kind", "")})
        return spec.model_dump(mode="json") | {"name": name or spec.kind}
    body: dict[str, Any] = {"name": name, "network": given.get("network") or "auto"}
    body |= {"classes": _whole("classes", given["classes"])} if "classes" in given else {}
    body |= {"dataset": given["dataset"]} if "dataset" in given else {}
    if "class_names" in given:
        body["class_names"] = [line.strip() for line in given["class_names"].splitlines() if line.strip()]
    if "input" in given:
        body["input"] = _input(given)
    return teachers.values_of(visitor.key_id, TeacherSpec.model_validate(body))


def _input(given: dict[str, str]) -> dict[str, Any]:
    sizes = [_whole("input", part) for part in given["input"].lower().replace("×", "x").split("x")]
    if len(sizes) != 3:
        raise Invalid([("/input", "must have the form channels x height x width: 3x32x32")])
    contract: dict[str, Any] = dict(zip(("channels", "height", "width"), sizes, strict=True))
    for name in ("mean", "std"):
        try:
            contract[name] = [float(part) for part in given.get(name, "").replace(",", " ").split()]
        except ValueError as error:
            raise Invalid([(f"/{name}", "must be numbers, separated by commas")]) from error
    return contract


def _whole(name: str, text: str) -> int:
    if not text.strip().isdecimal() or len(text) > 9:
        raise Invalid([(f"/{name}", f"must be a whole number, not {json.dumps(text[:40])}")])
    return int(text)


@router.put("/{identifier}/content")
async def send(request: Request, visitor: CurrentVisitor, identifier: Identifier) -> Response:
    """Receive the bytes of an upload or a range of them, as `PUT /v1/…/content` does."""
    require(visitor, "uploads:write")
    await receive(uploads_of(identifier), visitor.key_id, identifier, request)
    _, body = await run_in_threadpool(uploads_of(identifier).get, visitor.key_id, identifier)
    return JSONResponse(_received(body), 202, HEADERS)


@router.get("/{identifier}/received")
def show_received(visitor: CurrentVisitor, identifier: Identifier) -> Response:
    """How much has arrived, for a page that goes on after a broken connection."""
    require(visitor, "uploads:write")
    _, body = uploads_of(identifier).get(visitor.key_id, identifier)
    return JSONResponse(_received(body), headers=HEADERS)


@router.post("/{identifier}/delete")
async def delete(visitor: CurrentVisitor, identifier: Identifier) -> Response:
    """Delete an upload that no unfinished job uses."""
    require(visitor, "uploads:write")
    await run_in_threadpool(uploads_of(identifier).delete, visitor.key_id, identifier)
    return RedirectResponse("/uploads", 303, HEADERS)
