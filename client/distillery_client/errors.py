"""All errors of the client, as one tree.

DistilleryError           base class
├── Misconfigured         no URL or no key was found
├── Unreachable           the service did not answer
├── Refused               the service responded with a problem document (RFC 9457)
│   ├── InvalidRequest    400, 411, 413, 415, 422: the request must change
│   ├── Unauthorised      401, 403: the key is missing, not valid or lacks a permission
│   ├── NotFound          404
│   ├── Conflict          409, 412: the state of the record does not allow the operation
│   └── Unavailable       408, 429 and 5xx, after all retries
├── Rejected              the inspection rejected the bytes of an upload
├── JobEnded              a job failed or was cancelled
├── StillWaiting          a timeout of the caller passed
└── Corrupt               the SHA-256 of a download does not match
"""

from typing import Any

import httpx


class DistilleryError(Exception):
    """Base class of all errors of this package."""


class Misconfigured(DistilleryError):
    """No URL or no key was found."""


class Unreachable(DistilleryError):
    """The service did not answer."""


class Refused(DistilleryError):
    """The service responded with a problem document.

    `status` is the HTTP status, `problem` the whole document, `errors` its list of `pointer` and `message`, and
    `request_id` is the id of the request in the service's log.
    """

    def __init__(self, status: int, problem: dict[str, Any]):
        super().__init__(message_of(problem) or f"The service responded with status {status}.")
        self.status = status
        self.problem = problem

    @property
    def errors(self) -> list[dict[str, str]]:
        return list(self.problem.get("errors") or [])

    @property
    def request_id(self) -> str | None:
        return self.problem.get("request_id")


class InvalidRequest(Refused):
    """The request must change before it can succeed."""


class Unauthorised(Refused):
    """The key is missing, not valid, or lacks a permission."""


class NotFound(Refused):
    """The record does not exist, or it belongs to another key."""


class Conflict(Refused):
    """The state of the record does not allow this operation."""


class Unavailable(Refused):
    """The service could not handle the request, after all retries."""


class Rejected(DistilleryError):
    """The inspection rejected the bytes of an upload; `record` is the upload, `problem` says why."""

    def __init__(self, record: dict[str, Any]):
        self.record = record
        self.problem = record.get("problem") or {}
        super().__init__(message_of(self.problem) or f"The inspection rejected {record.get('id')}.")

    @property
    def errors(self) -> list[dict[str, str]]:
        return list(self.problem.get("errors") or [])


class JobEnded(DistilleryError):
    """A job failed or was cancelled; `job` is its record, `problem` its error (empty if it was cancelled)."""

    def __init__(self, job: dict[str, Any]):
        self.job = job
        self.problem = job.get("error") or {}
        super().__init__(message_of(self.problem) or f"The job {job.get('id')} was {job.get('status')}.")

    @property
    def errors(self) -> list[dict[str, str]]:
        return list(self.problem.get("errors") or [])


class StillWaiting(DistilleryError):
    """A timeout of the caller passed. The job or inspection continues."""


class Corrupt(DistilleryError):
    """The SHA-256 of downloaded bytes is not the one that the service publishes."""


def refused(response: httpx.Response) -> Refused:
    """The error for an unsuccessful response, whose body must have been read."""
    kinds = {
        401: Unauthorised,
        403: Unauthorised,
        404: NotFound,
        409: Conflict,
        412: Conflict,
        408: Unavailable,
        429: Unavailable,
    }
    kind = kinds.get(response.status_code, Unavailable if response.status_code >= 500 else InvalidRequest)
    return kind(response.status_code, _document(response))


def message_of(problem: dict[str, Any]) -> str:
    """The message of a problem document or of a job's error: its detail, else its message, else its title."""
    return str(problem.get("detail") or problem.get("message") or problem.get("title") or "")


def _document(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        document = None
    if isinstance(document, dict):
        return document
    return {"title": response.reason_phrase, "status": response.status_code, "detail": response.text[:500]}
