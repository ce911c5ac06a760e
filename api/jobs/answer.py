"""The response that shows a job."""

from fastapi import Response

from api.jobs.shared_reads import Shown

RETRY_SECONDS = "2"


def answer(shown: Shown) -> Response:
    """A job with its `ETag`, or a 304 if the client knows it already."""
    headers = {"ETag": shown.tag, "Cache-Control": "private, no-cache"}
    if not shown.final:
        headers["Retry-After"] = RETRY_SECONDS
    if shown.body is None:
        return Response(status_code=304, headers=headers)
    return Response(shown.body, media_type="application/json", headers=headers)
