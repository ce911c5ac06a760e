"""The app: `uvicorn api.main:app`, or better `python -m api`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api.access.auth import ensure_first_key
from api.catalogue import routes as catalogue
from api.datasets import routes as datasets
from api.files import routes as files
from api.health import routes as health
from api.http import problem_documents
from api.http.head import HeadAsGet
from api.http.links import PREFIX
from api.http.observe import Observe
from api.http.openapi import describe
from api.http.row_watch import RowWatch
from api.jobs import output_routes
from api.jobs import routes as jobs
from api.jobs.feed import Feeds
from api.keys import routes as keys
from api.teachers import routes as teachers
from api.webhooks import routes as webhooks

DESCRIPTION = """Upload a trained vision network, say what student you want, and download a small network with an
honest report. Create a teacher and PUT its weights, submit a job, wait for it, download its artifacts.

Every error is a problem document (RFC 9457). Requests carry a key: `Authorization: Bearer dsk_…`."""


TAGS = [
    {"name": "teachers", "description": "Trained networks that are distilled from."},
    {"name": "datasets", "description": "Images with labels."},
    {"name": "files", "description": "Other inputs of jobs, such as weights to begin with."},
    {"name": "jobs", "description": "Distillations, and what comes of them."},
    {"name": "catalogue", "description": "What a job's spec may name."},
    {"name": "keys", "description": "Who may ask, for what, and how much."},
    {"name": "webhooks", "description": "Where word of a job's end goes."},
    {"name": "health", "description": "Whether the service is up, and its figures."},
]


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
        openapi_tags=TAGS,
        lifespan=lifespan,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.watch = RowWatch()
    app.state.feeds = Feeds(app.state.watch)
    problem_documents.install(app)
    routers = (teachers.router, datasets.router, files.router, jobs.dry_run, jobs.router, output_routes.router)
    for router in (*routers, webhooks.router, keys.router, catalogue.router):
        app.include_router(router, prefix=PREFIX)
    app.include_router(health.router)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    app.add_middleware(HeadAsGet)
    app.add_middleware(Observe)
    return app


app = create_app()
