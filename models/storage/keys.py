"""Every key in storage, in one place: what is kept under it, and to whom it belongs.

| key | what |
|---|---|
| `uploads/UPLOAD/NONCE` | an upload as it was sent; removed after its inspection. One key for each PUT, so that two cannot overwrite each other |
| `blobs/UPLOAD/INSPECTION-ATTEMPT.safetensors` | its canonical form. One key for each attempt |
| `jobs/JOB/parts/SHA256` | a part of a checkpoint; written once |
| `jobs/JOB/ATTEMPT/NAME` | an artifact |
| `jobs/JOB/ATTEMPT/engine.log` | what the engine wrote to standard error |
| `jobs/JOB/ATTEMPT/previews/STEP-NAME` | a preview |
"""

PREFIXES = ("uploads", "blobs", "jobs")
"""Everything that this service stores is under one of these."""


def upload(upload_id: str, nonce: str) -> str:
    """What one PUT sends."""
    return f"uploads/{upload_id}/{nonce}"


def canonical(upload_id: str, inspection_id: str, attempt: int) -> str:
    """The canonical form that one attempt at an inspection makes of an upload."""
    return f"blobs/{upload_id}/{inspection_id}-{attempt}.safetensors"


def job(job_id: str) -> str:
    """The prefix of all that belongs to a job."""
    return f"jobs/{job_id}"


def checkpoint_parts(job_id: str) -> str:
    """The prefix of the parts of a job's checkpoints."""
    return f"{job(job_id)}/parts"


def checkpoint_part(job_id: str, sha256: str) -> str:
    """A part of a checkpoint, named by its hash."""
    return f"{checkpoint_parts(job_id)}/{sha256}"


def artifact(job_id: str, attempt: int, name: str) -> str:
    """A file that an attempt publishes when it succeeds."""
    return f"{job(job_id)}/{attempt}/{name}"


def engine_log(job_id: str, attempt: int) -> str:
    """An attempt's log."""
    return f"{job(job_id)}/{attempt}/engine.log"


def preview(job_id: str, attempt: int, step: int, name: str) -> str:
    """An image that an attempt shows while it runs."""
    return f"{job(job_id)}/{attempt}/previews/{step}-{name}"


def owner(key: str) -> str | None:
    """The id of the upload or job that a key belongs to; None for a key that this service does not make."""
    prefix, _, rest = key.partition("/")
    if prefix not in PREFIXES:
        return None
    identifier, slash, _ = rest.partition("/")
    if prefix == "blobs" and not slash:  # `blobs/UPLOAD.safetensors`, as earlier versions named them
        identifier, slash, _ = rest.partition(".")
    return identifier if slash else None
