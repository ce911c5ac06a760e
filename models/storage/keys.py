"""All storage keys, their contents and their owners.

| key | content |
|---|---|
| `uploads/UPLOAD/NONCE` | an upload as sent; removed after its inspection. One key for each PUT, so two PUTs cannot overwrite each other |
| `blobs/UPLOAD/INSPECTION-ATTEMPT.safetensors` | the canonical form of an upload. One key for each attempt |
| `blobs/UPLOAD/INSPECTION-ATTEMPT.png` | a sheet of images of a dataset, beside its canonical form |
| `blobs/UPLOAD/SHA256` | a further file of a canonical form, such as a shard of photographs; named by its hash |
| `jobs/JOB/parts/SHA256` | a part of a checkpoint; written once |
| `jobs/JOB/ATTEMPT/NAME` | an artifact |
| `jobs/JOB/ATTEMPT/engine.log` | standard error of the engine |
| `jobs/JOB/ATTEMPT/previews/STEP-NAME` | a preview |
"""

PREFIXES = ("uploads", "blobs", "jobs")
"""The prefixes of all keys."""


def upload(upload_id: str, nonce: str) -> str:
    """The bytes of one PUT of an upload."""
    return f"uploads/{upload_id}/{nonce}"


def canonical(upload_id: str, inspection_id: str, attempt: int) -> str:
    """The canonical form of an upload, written by one attempt at an inspection."""
    return f"blobs/{upload_id}/{inspection_id}-{attempt}.safetensors"


def samples(canonical_key: str) -> str:
    """The sheet of images of a dataset, from the key of its canonical form."""
    return f"{canonical_key.removesuffix('.safetensors')}.png"


def canonical_part(upload_id: str, sha256: str) -> str:
    """A further file of the canonical form of an upload, named by its hash."""
    return f"blobs/{upload_id}/{sha256}"


def job(job_id: str) -> str:
    """The prefix of all blobs of a job."""
    return f"jobs/{job_id}"


def checkpoint_parts(job_id: str) -> str:
    """The prefix of the parts of a job's checkpoints."""
    return f"{job(job_id)}/parts"


def checkpoint_part(job_id: str, sha256: str) -> str:
    """A part of a checkpoint, named by its hash."""
    return f"{checkpoint_parts(job_id)}/{sha256}"


def artifact(job_id: str, attempt: int, name: str) -> str:
    """An artifact of a succeeded attempt."""
    return f"{job(job_id)}/{attempt}/{name}"


def engine_log(job_id: str, attempt: int) -> str:
    """The log of an attempt."""
    return f"{job(job_id)}/{attempt}/engine.log"


def preview(job_id: str, attempt: int, step: int, name: str) -> str:
    """A preview of an attempt."""
    return f"{job(job_id)}/{attempt}/previews/{step}-{name}"


def owner(key: str) -> str | None:
    """The id of the upload or job that a key belongs to; None if the key is not one of this service."""
    prefix, _, rest = key.partition("/")
    if prefix not in PREFIXES:
        return None
    identifier, slash, _ = rest.partition("/")
    if prefix == "blobs" and not slash:  # `blobs/UPLOAD.safetensors`, the form of earlier versions
        identifier, slash, _ = rest.partition(".")
    return identifier if slash else None
