"""`/experiments/new`: a form that compares methods, and an experiment as JSON."""

import json
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from api.dashboard.rendering import HEADERS, render
from api.dashboard.schema_fields import value_of
from api.dashboard.visitors import CurrentVisitor, Form, PageRoute, Visitor, form_of, require
from api.datasets.service import DATASETS
from api.experiments import service
from api.experiments.schemas import SEED, ExperimentSpec
from api.http.bodies import parse
from api.http.errors import BadRequest, Invalid
from api.http.paging import Window
from api.teachers.service import TEACHERS
from models.spec.catalogue import known
from models.spec.problems import problems_of

router = APIRouter(prefix="/experiments/new", route_class=PageRoute, include_in_schema=False)
Problems = list[tuple[str, str]]
SHOWN = 100
LABELS = {"name": "cross_entropy", "weight": 1.0}
METHODS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "plain": ("labels alone, without the teacher", [LABELS]),
    "KD": (
        "the teacher's softened probabilities",
        [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9, "temperature": 4.0}],
    ),
    "DKD": ("KD, apart for the right class and the others", [LABELS, {"name": "dkd", "weight": 1.0}]),
    "DIST": ("correlation of predictions", [LABELS, {"name": "dist", "weight": 2.0}]),
    "hint": ("feature maps, by a learnt layer", [LABELS, {"name": "hint", "weight": 100.0}]),
    "AT": ("attention maps", [LABELS, {"name": "attention_transfer", "weight": 1000.0}]),
    "NST": ("distributions of activations", [LABELS, {"name": "nst", "weight": 50.0}]),
    "RKD": ("distances and angles between samples", [LABELS, {"name": "relational", "weight": 1.0}]),
}
"""Methods by name, with the weights of docs/comparison.md."""
CHOSEN = ("plain", "KD", "DKD", "DIST")
MOST_SEEDS = 10
EXAMPLE: dict[str, Any] = {
    "name": "which loss",
    "base": {
        "teacher": "tch_…",
        "dataset": "dts_…",
        "student": {"like": "teacher", "width": 0.5},
        "training": {"epochs": 10},
    },
    "grid": {"objectives": {name: METHODS[name][1] for name in ("KD", "DKD")}, SEED: [0, 1, 2]},
}
DEFAULTS = {"name": "which method", "network": "like", "width": "0.5", "epochs": "10", "seeds": "3"}


def _values(visitor: Visitor) -> dict[str, Any]:
    window, may = Window(SHOWN, None), visitor.may("uploads:read")
    return {
        "teachers": [one for one in TEACHERS.page(visitor.key_id, window, None).data if one.status != "rejected"] if may else [],
        "datasets": [one for one in DATASETS.page(visitor.key_id, window, None).data if one.status != "rejected"] if may else [],
        "networks": sorted(known("networks")),
        "methods": METHODS,
        "most_seeds": MOST_SEEDS,
    }  # fmt: skip


async def _page(request: Request, visitor: Visitor, status: int = 200, **more: Any) -> Response:
    example = json.dumps(EXAMPLE, indent=2, ensure_ascii=False)
    given = {"text": example, "problems": [], "texts": DEFAULTS, "chosen": CHOSEN, "as_json": False}
    values = await run_in_threadpool(_values, visitor)
    return render(request, "new_experiment.html", status, **(given | values | more))


@router.get("")
async def show(request: Request, visitor: CurrentVisitor) -> Response:
    """The form, and an example as JSON."""
    require(visitor, "jobs:write")
    return await _page(request, visitor)


@router.post("")
async def submit(request: Request, visitor: CurrentVisitor) -> Response:
    """Submit an experiment written as JSON, or show its problems."""
    require(visitor, "jobs:write")
    text = (await form_of(request)).get("spec", "")
    try:
        body = parse(text.encode())
    except BadRequest as error:
        return await _page(request, visitor, 422, text=text, problems=[("", error.detail)], as_json=True)
    made, problems = await _submitted(visitor, body)
    return made or await _page(request, visitor, 422, text=text, problems=problems, as_json=True)


@router.post("/methods")
async def compare(request: Request, visitor: CurrentVisitor) -> Response:
    """Submit the comparison that the form describes, or show its problems."""
    require(visitor, "jobs:write")
    form = await form_of(request)
    chosen = [value for name, value in form.pairs if name == "method" and value in METHODS]
    body = body_of(form, chosen)
    made, problems = await _submitted(visitor, body)
    text = json.dumps(body, indent=2, ensure_ascii=False)
    return made or await _page(
        request, visitor, 422, text=text, problems=problems, texts=dict(form), chosen=tuple(chosen)
    )


def body_of(form: Form, chosen: list[str]) -> dict[str, Any]:
    """The experiment that a form describes: one variant a method, with every seed."""
    texts = {name: text.strip() for name, text in form.items()}
    like = {"like": "teacher", "width": value_of(texts.get("width") or "0.5", {"number"})}
    network = texts.get("network") or "like"
    base: dict[str, Any] = {name: texts[name] for name in ("teacher", "dataset") if texts.get(name)}
    base["student"] = like if network == "like" else {"network": network}
    base["training"] = {"epochs": value_of(texts.get("epochs") or DEFAULTS["epochs"], {"integer"})}
    seeds = texts.get("seeds", "")
    count = min(int(seeds), MOST_SEEDS) if seeds.isdecimal() and len(seeds) < 4 else 1
    grid = {"objectives": {name: METHODS[name][1] for name in chosen}, SEED: list(range(max(1, count)))}
    return {"name": texts.get("name") or DEFAULTS["name"], "base": base, "grid": grid}


async def _submitted(visitor: Visitor, body: Any) -> tuple[Response | None, Problems]:
    """The way to the experiment that was made, or the problems of its spec."""
    try:
        spec = ExperimentSpec.model_validate(body)
        made = await run_in_threadpool(service.submit, visitor.key_id, spec, body, None)
    except ValidationError as error:
        return None, [(one.pointer, one.message) for one in problems_of(error)]
    except Invalid as error:
        return None, list(error.errors)
    return RedirectResponse(f"/experiments/{made.id}", 303, HEADERS), []
