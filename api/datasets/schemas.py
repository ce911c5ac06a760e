"""Response body of datasets."""

from typing import Any

from pydantic import ConfigDict, Field

from api.uploads.service import UploadBody


class DatasetBody(UploadBody):
    """Images, with labels or without."""

    options: dict[str, Any] = Field(description="How the inspection reads the images and labels.")
    source: str | None = Field(None, description="Where the files are, if they were not sent.")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "dts_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b",
                "name": "digits",
                "labels": {},
                "status": "inspecting",
                "size": 11_490_434,
                "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "findings": None,
                "problem": None,
                "created_at": "2026-11-21T09:00:00Z",
                "updated_at": "2026-11-21T09:00:03Z",
                "options": {
                    "height": None,
                    "width": None,
                    "channels": None,
                    "labels": "class",
                    "first_label": None,
                    "broken": "refuse",
                    "exif": "ignore",
                    "background": "white",
                    "sixteen_bit": "scale",
                    "form": "auto",
                    "test_fraction": None,
                },
                "upload": "http://127.0.0.1:8000/v1/datasets/dts_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b/content",
                "links": {"self": "http://127.0.0.1:8000/v1/datasets/dts_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"},
            }
        }
    )
