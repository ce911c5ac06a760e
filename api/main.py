"""The FastAPI app. `python -m api` serves it, with time limits that `uvicorn api.main:app` lacks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api.access import last_use
from api.access.admission import Admission
from api.access.auth import ensure_first_key
from api.catalogue import routes as catalogue
from api.dashboard import app as dashboard
from api.datasets import routes as datasets
from api.experiments import routes as experiments
from api.files import routes as files
from api.health import routes as health
from api.http import docs_page, problem_documents
from api.http.head import HeadAsGet
from api.http.links import PREFIX
from api.http.observe import Observe
from api.http.openapi import describe
from api.http.row_watch import RowWatch
from api.http.slow_bodies import SlowBodies
from api.jobs import output_routes
from api.jobs import routes as jobs
from api.jobs.crowds import Crowds
from api.jobs.feed import Feeds
from api.jobs.polls import Polls
from api.jobs.shared_lists import SharedLists
from api.jobs.shared_reads import SharedReads
from api.jobs.submission import Submissions
from api.keys import routes as keys
from api.reports import routes as reports
from api.teachers import routes as teachers
from api.webhooks import routes as webhooks

DESCRIPTION = """Upload a trained vision network, choose a student, and download a small network with a report of its
metrics. Create a teacher and PUT its weights, submit a job, wait for it, download its artifacts.

Every error is a problem document (RFC 9457). Every request needs a key: `Authorization: Bearer dsk_…`."""


TAGS = [
    {"name": "teachers", "description": "Trained networks to distil from."},
    {"name": "datasets", "description": "Images with labels."},
    {"name": "files", "description": "Other inputs of jobs, such as initial weights."},
    {"name": "jobs", "description": "Distillations, their events, metrics, previews and artifacts."},
    {"name": "experiments", "description": "Several jobs from one request, compared in a table."},
    {"name": "catalogue", "description": "Methods and networks that a job's spec can name."},
    {"name": "keys", "description": "API keys, their scopes and their limits."},
    {"name": "webhooks", "description": "Notifications when the status of a job changes."},
    {"name": "health", "description": "Liveness, readiness and metrics for Prometheus."},
]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Create the first key of a new database; at the end, close all long polls and event streams."""
    ensure_first_key()
    async with last_use.writing():
        yield
    end_waiting(app)


def end_waiting(app: FastAPI) -> None:
    """Answer all long polls, and end all event streams."""
    app.state.watch.close()
    app.state.feeds.close()


def create_app() -> FastAPI:
    """The app with all routes, middleware and exception handlers."""
    app = FastAPI(
        title="Distillery",
        summary="Distillation as a service",
        description=DESCRIPTION,
        version="1",
        openapi_tags=TAGS,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.watch = RowWatch()
    app.state.feeds = Feeds()
    app.state.reads = SharedReads()
    app.state.crowds = Crowds(app.state.reads)
    app.state.lists = SharedLists()
    app.state.submissions = Submissions()
    problem_documents.install(app)
    uploads = teachers.router, datasets.router, files.router
    of_jobs = jobs.dry_run, jobs.router, output_routes.router, reports.router, experiments.router
    for router in (*uploads, *of_jobs, webhooks.router, keys.router, catalogue.router):
        app.include_router(router, prefix=PREFIX)
    app.include_router(health.router)
    docs_page.install(app)
    dashboard.install(app)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    app.add_middleware(HeadAsGet)
    app.add_middleware(SlowBodies)
    app.add_middleware(Admission)
    app.add_middleware(Polls)
    app.add_middleware(Observe)
    return app


app = create_app()
