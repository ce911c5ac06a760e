"""Adds the dashboard to the app."""

from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from api.dashboard import (
    compare_page,
    experiment_pages,
    job_list,
    job_log,
    job_page,
    key_pages,
    new_experiment,
    new_job,
    operator_page,
    sign_in,
    upload_pages,
)
from api.dashboard.rendering import FOLDER
from api.dashboard.shared_pages import SharedPages

STATIC = "/static"
ROUTERS = (
    sign_in.router, job_list.router, new_job.router, new_experiment.router, job_page.router, job_log.router, upload_pages.router, compare_page.router,
    experiment_pages.router, key_pages.router, operator_page.router,
)  # fmt: skip


class Scripts(StaticFiles):
    """Scripts and styles of the pages. Browsers ask whether they have changed."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return response


def install(app: FastAPI) -> None:
    """Add the pages, and their scripts and styles."""
    app.state.pages = SharedPages()
    for router in ROUTERS:
        app.include_router(router)
    app.mount(STATIC, Scripts(directory=FOLDER / "static"), name="static")
