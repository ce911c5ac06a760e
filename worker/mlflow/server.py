"""Calls of MLflow's REST API (https://mlflow.org/docs/latest/rest-api.html), and uploads to its artifact proxy."""

import base64
import json
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

import certifi
import httpcore

from models.settings import Settings

MOST_METRICS, MOST_PARAMETERS, MOST_TAGS = 1000, 100, 100
"""Most entries of one request."""
BYTES_A_SECOND = 1_000_000
JOB_TAG = "distillery.job"
PROXIED = "mlflow-artifacts"
"""Scheme of an artifact location to which the server itself writes."""


class MlflowError(Exception):
    """MLflow refused a call, or did not answer."""


class Unreachable(MlflowError):
    """There was no answer."""


class Server:
    """One MLflow server. Every method may raise `MlflowError`."""

    def __init__(self, settings: Settings):
        address = urlsplit(settings.mlflow_tracking_uri)
        host = address.netloc.rpartition("@")[2]
        self._base = f"{address.scheme}://{host}{address.path.rstrip('/')}"
        self._seconds = settings.mlflow_seconds
        self._headers = {"User-Agent": "Distillery-MLflow/1"}
        if settings.mlflow_token:
            self._headers["Authorization"] = f"Bearer {settings.mlflow_token}"
        elif address.username:
            pair = f"{unquote(address.username)}:{unquote(address.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        self._pool = httpcore.ConnectionPool(ssl_context=_trust(), max_connections=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.close()

    def experiment(self, name: str) -> str:
        """The id of an experiment, which is created if it does not exist."""
        query = f"experiments/get-by-name?experiment_name={quote(name, safe='')}"
        found = self._call("GET", query, known=404)
        if found is None:
            made = self._call("POST", "experiments/create", {"name": name}, known=400)  # another worker may be faster
            found = {"experiment": made} if made else self._call("GET", query)
        return str((found or {})["experiment"]["experiment_id"])

    def run_of(self, experiment: str, job_id: str) -> str | None:
        """The id of the run that follows a job; None without one."""
        asked = {"experiment_ids": [experiment], "filter": f"tags.\"{JOB_TAG}\" = '{job_id}'", "max_results": 1}
        runs = (self._call("POST", "runs/search", asked) or {}).get("runs") or []
        return str(runs[0]["info"]["run_id"]) if runs else None

    def create_run(self, experiment: str, job_id: str, name: str, started: int) -> str:
        """Create the run of a job; returns its id. `started` is in milliseconds."""
        tags = [{"key": JOB_TAG, "value": job_id}, {"key": "mlflow.source.name", "value": "distillery"}]
        asked = {"experiment_id": experiment, "run_name": name, "start_time": started, "tags": tags}
        return str((self._call("POST", "runs/create", asked) or {})["run"]["info"]["run_id"])

    def describe(self, run: str, parameters: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Send parameters, which MLflow lets nobody change later, and tags."""
        pairs = [{"key": key, "value": value} for key, value in parameters.items()]
        labels = [{"key": key, "value": value} for key, value in tags.items()]
        for some in _parts(pairs, MOST_PARAMETERS):
            self._call("POST", "runs/log-batch", {"run_id": run, "params": some})
        for some in _parts(labels, MOST_TAGS):
            self._call("POST", "runs/log-batch", {"run_id": run, "tags": some})

    def log(self, run: str, metrics: Sequence[Mapping[str, Any]]) -> None:
        """Send values of metrics: mappings of `key`, `value`, `timestamp` in milliseconds and `step`."""
        for some in _parts(metrics, MOST_METRICS):
            self._call("POST", "runs/log-batch", {"run_id": run, "metrics": some})

    def artifact_folder(self, run: str) -> str | None:
        """The path of a run's artifacts at the server's proxy; None if the server does not store artifacts itself."""
        found = self._call("GET", f"runs/get?run_id={quote(run, safe='')}") or {}
        location = urlsplit(str(found["run"]["info"].get("artifact_uri") or ""))
        return location.path.strip("/") if location.scheme == PROXIED else None

    def put(self, folder: str, name: str, size: int, chunks: Iterator[bytes]) -> None:
        """Send an artifact."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        path = f"/api/2.0/mlflow-artifacts/artifacts/{quote(folder)}/{quote(name)}"
        self._request("PUT", path, headers, chunks, size)

    def end(self, run: str, status: str, at: int) -> None:
        """Set the status of a run and the time of its end, in milliseconds."""
        self._call("POST", "runs/update", {"run_id": run, "status": status, "end_time": at})

    def _call(self, method: str, what: str, body: Any = None, known: int = 0) -> dict[str, Any] | None:
        """The answer to a call of the API; None if its status is `known`."""
        data = b"" if body is None else json.dumps(body, allow_nan=False).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data))} if data else {}
        answer = self._request(method, f"/api/2.0/mlflow/{what}", headers, data, len(data), known)
        if answer is None:
            return None
        try:
            found = json.loads(answer or b"{}")
        except ValueError as error:
            raise MlflowError(f"{self._base} does not answer as MLflow does: {what.partition('?')[0]}") from error
        return found if isinstance(found, dict) else {}

    def _request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        content: bytes | Iterator[bytes],
        size: int,
        known: int = 0,
    ) -> bytes | None:
        seconds = self._seconds + size / BYTES_A_SECOND
        timeout = {"connect": self._seconds, "pool": seconds, "read": seconds, "write": seconds}
        try:
            answer = self._pool.request(
                method, self._base + path, headers=[*(self._headers | dict(headers)).items()], content=content or None,
                extensions={"timeout": timeout},
            )  # fmt: skip
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise Unreachable(f"{self._base} does not answer: {type(error).__name__} {error}") from error
        if answer.status == known:
            return None
        if not 200 <= answer.status < 300:
            words = answer.content[:300].decode(errors="replace")
            raise MlflowError(f"{method} {path.partition('?')[0]}: status {answer.status}: {words}")
        return bytes(answer.content)


def _parts(entries: Sequence[Any], most: int) -> Iterable[Sequence[Any]]:
    return (entries[start : start + most] for start in range(0, len(entries), most))


@lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    """A TLS context that trusts the public authorities and those of the system (`SSL_CERT_FILE`)."""
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    return context
