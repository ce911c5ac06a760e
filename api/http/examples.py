"""Examples of response bodies by schema name, for bodies without an own example. A test validates them."""

from typing import Any

BASE = "http://127.0.0.1:8000/v1"
JOB, KEY = "job_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b", "key_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
STARTED, ENDED = "2026-11-21T09:00:00Z", "2026-11-21T09:02:10Z"

SUMMARY: dict[str, Any] = {
    "id": JOB, "name": "half-lenet", "labels": {"team": "vision"}, "status": "succeeded", "phase": "exporting",
    "stage": "student", "reason": None, "attempt": 1, "priority": 0, "error": None, "retry_of": None, "version": 57,
    "progress": {"stage": "student", "step": 3000, "steps": 3000, "fraction": 1.0, "epoch": 30},
    "cancel_requested_at": None, "created_at": STARTED, "started_at": STARTED, "finished_at": ENDED,
    "links": {"self": f"{BASE}/jobs/{JOB}", "artifacts": f"{BASE}/jobs/{JOB}/artifacts"},
}  # fmt: skip
EVENT: dict[str, Any] = {
    "seq": 7, "attempt": 1, "type": "progress", "level": "info", "message": "step 1200 of 3000",
    "data": {"step": 1200, "steps": 3000, "fraction": 0.4}, "links": {}, "created_at": ENDED,
}  # fmt: skip
METRIC = {"name": "loss", "step": 1200, "value": 0.31, "attempt": 1, "created_at": ENDED}
ARTIFACT: dict[str, Any] = {
    "id": "art_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b", "name": "student.onnx", "attempt": 1, "size": 64_512,
    "content_type": "application/octet-stream", "sha256": SHA256, "created_at": ENDED,
    "links": {"self": f"{BASE}/jobs/{JOB}/artifacts/student.onnx"},
}  # fmt: skip
PREVIEW = ARTIFACT | {
    "id": "prv_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b", "name": "samples.png", "content_type": "image/png", "step": 1200,
    "links": {"self": f"{BASE}/jobs/{JOB}/previews/samples.png"},
}  # fmt: skip
KEY_EXAMPLE: dict[str, Any] = {
    "id": KEY, "name": "ci", "scopes": ["jobs:read", "jobs:write"], "created_at": STARTED, "expires_at": None,
    "revoked_at": None, "last_used_at": ENDED, "previous_until": None, "links": {"self": f"{BASE}/keys/{KEY}"},
    "limits": {
        "upload_bytes": 2**32, "storage_bytes": 2**36, "queued_jobs": 1000, "running_jobs": 4, "job_minutes": 1440,
        "highest_priority": 0, "requests_a_minute": 600,
    },
}  # fmt: skip
USAGE = {"stored_bytes": 2**20, "queued_jobs": 1, "running_jobs": 1, "requests": 12}
CATALOGUE = {
    "objectives": {"kd": {"paper": "Hinton et al., 2015", "parameters": {"temperature": {"type": "number"}}}},
    "procedures": {"direct": {}}, "sources": {"dafl": {}}, "transforms": {}, "networks": {"lenet5_half": {}},
    "tasks": {"classification": {}}, "parts": {"training": {"parameters": {"batch_size": {"type": "integer"}}}},
}  # fmt: skip
WORKER: dict[str, Any] = {
    "id": "wrk_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b", "kind": "distill", "host": "gpu-1", "about": {"sandbox": "landlock"},
    "busy": True, "seen_at": ENDED,
}  # fmt: skip
READY = {
    "status": "ready", "checks": {"database": "ok", "storage": "ok", "broker": "ok"}, "workers": [WORKER], "warnings": [],
}  # fmt: skip

EXPERIMENT: dict[str, Any] = {
    "id": "exp_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b", "name": "which loss", "labels": {}, "status": "running",
    "counts": {"queued": 5, "running": 1}, "created_at": STARTED,
    "links": {"self": f"{BASE}/experiments/exp_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"},
}  # fmt: skip

EXAMPLES: dict[str, Any] = {
    "ExperimentSummary": EXPERIMENT,
    "JobSummary": SUMMARY,
    "EventBody": EVENT,
    "MetricBody": METRIC,
    "ArtifactBody": ARTIFACT,
    "PreviewBody": PREVIEW,
    "CatalogueBody": CATALOGUE,
    "Alive": {"status": "alive"},
    "Ready": READY,
    "SecretBody": {"created_at": STARTED, "previous_until": None},
    "UploadEdit": {"name": "digits, second try", "labels": {"team": "vision"}},
    "KeyBody": KEY_EXAMPLE,
    "KeyMade": KEY_EXAMPLE | {"key": "dsk_" + "x" * 43},
    "KeyUse": KEY_EXAMPLE | {"used": USAGE},
    "KeyEdit": {"name": "ci", "scopes": ["jobs:read"]},
}
