"""`/jobs/{id}/report.html`."""

from fastapi import APIRouter, Response

from api.dependencies import Identifier, JobsRead
from api.http.bodies import StrictRoute
from api.http.problem_documents import problems
from api.reports.page import POLICY, report_page

router = APIRouter(prefix="/jobs/{identifier}", tags=["jobs"], route_class=StrictRoute)


def answer(text: str, job_id: str) -> Response:
    """A report as a file to keep."""
    headers = {
        "Content-Disposition": f'attachment; filename="{job_id}-report.html"',
        "Content-Security-Policy": POLICY,
        "Cache-Control": "private, no-cache",
    }
    return Response(text, media_type="text/html; charset=utf-8", headers=headers)


@router.get(
    "/report.html",
    summary="Download a job's report",
    operation_id="get_report",
    response_class=Response,
    responses=problems(404, 409, 422)
    | {200: {"description": "One HTML file.", "content": {"text/html": {"schema": {"type": "string"}}}}},
)
def download_report(key: JobsRead, identifier: Identifier) -> Response:
    """One file that loads nothing: the question, the result in one sentence, student against teacher, results by class,
    calibration, curves, pictures, what limits the result, and how to run it again. Available for every job that has ended, also
    a failed or cancelled one, with what there is."""
    return answer(report_page(key, identifier), identifier)
