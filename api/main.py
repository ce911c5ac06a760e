"""The app: `uvicorn api.main:app`, or better `python -m api`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api import health, problems
from api.auth import ensure_first_key
from api.catalogue import routes as catalogue
from api.datasets import routes as datasets
from api.files import routes as files
from api.jobs import result_routes
from api.jobs import routes as jobs
from api.jobs.feed import Feeds
from api.keys import routes as keys
from api.links import PREFIX
from api.observe import Observe
from api.teachers import routes as teachers
from api.watch import Watch
from api.webhooks import routes as webhooks

DESCRIPTION = """Upload a trained vision network, say what student you want, and download a small network with an
honest report. Create a teacher and PUT its weights, submit a job, wait for it, download its artifacts.

Every error is a problem document (RFC 9457). Requests carry a key: `Authorization: Bearer dsk_…`."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make the first key of a new database."""
    ensure_first_key()
    yield
    app.state.watch.close()


def create_app() -> FastAPI:
    """The whole API."""
    app = FastAPI(
        title="Distillery",
        summary="Distillation as a service",
        description=DESCRIPTION,
        version="1",
        lifespan=lifespan,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.watch = Watch()
    app.state.feeds = Feeds(app.state.watch)
    problems.install(app)
    routers = (teachers.router, datasets.router, files.router, jobs.dry_run, jobs.router, result_routes.router)
    for router in (*routers, webhooks.router, keys.router, catalogue.router):
        app.include_router(router, prefix=PREFIX)
    app.include_router(health.router)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.add_middleware(Observe)
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The schema, with errors under the type that they are sent with."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            separate_input_output_schemas=app.separate_input_output_schemas,
        )
        for path in schema["paths"].values():
            for operation in path.values():
                for status, answer in operation["responses"].items():
                    content = answer.get("content", {})
                    if status[0] in "45" and "application/json" in content:
                        answer["content"] = {problems.MEDIA_TYPE: content["application/json"]}
        app.openapi_schema = schema
    return app.openapi_schema


app = create_app()
