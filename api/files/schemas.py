"""Response body of files."""

from typing import Any

from pydantic import ConfigDict, Field

from api.uploads.service import UploadBody


class FileBody(UploadBody):
    """Another input of a job."""

    kind: str = Field(description="Kind of the file, such as `weights` or `statistics`.")
    options: dict[str, Any] = Field(description="How the inspection reads the file.")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "fil_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b",
                "name": "pretrained weights",
                "labels": {},
                "status": "waiting",
                "size": None,
                "sha256": None,
                "findings": None,
                "problem": None,
                "created_at": "2026-11-21T09:00:00Z",
                "updated_at": "2026-11-21T09:00:00Z",
                "kind": "weights",
                "options": {},
                "upload": "http://127.0.0.1:8000/v1/files/fil_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b/content",
                "links": {"self": "http://127.0.0.1:8000/v1/files/fil_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"},
            }
        }
    )
