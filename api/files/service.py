"""Files in the database."""

from typing import Any

from api.files.schemas import FileBody
from api.uploads.service import Uploads
from models.records import File
from models.spec.job_spec import FileSpec

FILES = Uploads(File, FileBody, "file", "fil", "/files")


def values_of(spec: FileSpec) -> dict[str, Any]:
    """Column values of a new file."""
    return spec.model_dump(mode="json") | {"name": spec.name or spec.kind}
