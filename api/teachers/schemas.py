"""Response body of teachers."""

from typing import Any

from pydantic import ConfigDict, Field

from api.uploads.service import UploadBody


class TeacherBody(UploadBody):
    """A trained network."""

    network: str = Field(description="Name of the network in the catalogue; `auto` until its inspection has found it.")
    options: dict[str, Any] = Field(description="Options of the network.")
    classes: int = Field(description="Number of classes; 0 until the inspection has found it.")
    class_names: list[str] = Field(description="Names of the classes in order; empty if unknown.")
    input: dict[str, Any] = Field(
        description="Input contract: channels, height, width, and the mean and std of each channel; empty until the "
        "inspection has found it."
    )
    dataset: str | None = Field(description="Id of the dataset by whose images the inspection finds what is not given.")
    weights: str = Field(
        description="Which weights of the file are read: `auto`, `raw`, `averaged`, or a path within it."
    )

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "tch_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b",
                "name": "digits",
                "labels": {"team": "vision"},
                "status": "ready",
                "size": 247_000,
                "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "findings": {"parameters": 61_706},
                "problem": None,
                "created_at": "2026-11-21T09:00:00Z",
                "updated_at": "2026-11-21T09:00:03Z",
                "network": "lenet5",
                "options": {},
                "classes": 10,
                "class_names": [],
                "input": {"channels": 1, "height": 32, "width": 32, "mean": [0.1307], "std": [0.3081]},
                "dataset": None,
                "weights": "auto",
                "upload": "http://127.0.0.1:8000/v1/teachers/tch_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b/content",
                "links": {"self": "http://127.0.0.1:8000/v1/teachers/tch_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"},
            }
        }
    )
