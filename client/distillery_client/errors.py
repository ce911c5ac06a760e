"""What can go wrong, as one tree.

DistilleryError           a failure that this package can explain
├── Misconfigured         no address or no key was found
├── Unreachable           the service did not answer
├── Refused               the service answered with a problem document (RFC 9457)
│   ├── InvalidRequest    400, 411, 413, 415, 422: the request has to change
│   ├── Unauthorised      401, 403: the key is missing, unknown or not allowed to
│   ├── NotFound          404
│   ├── Conflict          409, 412: the record is in another state
│   └── Unavailable       408, 429 and 5xx, after all retries
├── Rejected              the inspection of an upload refused its bytes
├── JobEnded              a job failed or was cancelled
├── StillWaiting          a wait took longer than the caller allowed
└── Corrupt               downloaded bytes do not have the published SHA-256
"""

from typing import Any

import httpx


class DistilleryError(Exception):
    """A failure that this package can explain."""


class Misconfigured(DistilleryError):
    """No address or no key was found."""


class Unreachable(DistilleryError):
    """The service did not answer."""


class Refused(DistilleryError):
    """The service answered with a problem document.

    `status` is the HTTP status, `problem` the whole document, `errors` its list of `pointer` and `message`, and
    `request_id` names the request in the service's log.
    """

    def __init__(self, status: int, problem: dict[str, Any]):
        super().__init__(sentence(problem) or f"the service answered with status {status}")
        self.status, self.problem = status, problem

    @property
    def errors(self) -> list[dict[str, str]]:
        return list(self.problem.get("errors") or [])

    @property
    def request_id(self) -> str | None:
        return self.problem.get("request_id")


class InvalidRequest(Refused):
    """The request has to change before it can succeed."""


class Unauthorised(Refused):
    """The key is missing, unknown, or not allowed to do this."""


class NotFound(Refused):
    """There is no such record, or it is another key's."""


class Conflict(Refused):
    """The record is not in a state that allows this."""


class Unavailable(Refused):
    """The service could not answer, after all retries."""


class Rejected(DistilleryError):
    """The inspection of an upload refused its bytes; `record` is the upload, `problem` says why."""

    def __init__(self, record: dict[str, Any]):
        self.record, self.problem = record, record.get("problem") or {}
        super().__init__(sentence(self.problem) or f"{record.get('id')} was rejected")

    @property
    def errors(self) -> list[dict[str, str]]:
        return list(self.problem.get("errors") or [])


class JobEnded(DistilleryError):
    """A job failed or was cancelled; `job` is its record, `problem` its error (empty when it was cancelled)."""

    def __init__(self, job: dict[str, Any]):
        self.job, self.problem = job, job.get("error") or {}
        super().__init__(sentence(self.problem) or f"{job.get('id')} was {job.get('status')}")

    @property
    def errors(self) -> list[dict[str, str]]:
        return list(self.problem.get("errors") or [])


class StillWaiting(DistilleryError):
    """A wait took longer than the caller allowed; what was waited for goes on."""


class Corrupt(DistilleryError):
    """Downloaded bytes do not have the SHA-256 that the service publishes."""


def refused(response: httpx.Response) -> Refused:
    """The error for a response that is not a success; its body must have been read."""
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


def sentence(problem: dict[str, Any]) -> str:
    """What a problem document says, in one sentence: its detail, else its message, else its title."""
    words = problem.get("detail") or problem.get("message") or problem.get("title") or ""
    return str(words)


def _document(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        document = None
    if isinstance(document, dict):
        return document
    return {"title": response.reason_phrase, "status": response.status_code, "detail": response.text[:500]}
