"""Response body of the catalogue."""

from typing import Any

from pydantic import ConfigDict, Field

from api.http.bodies import ResponseBody


class CatalogueBody(ResponseBody):
    """Everything that a job's spec can name."""

    model_config = ConfigDict(extra="allow")

    objectives: dict[str, Any] = Field(
        description="Losses by name, each with its paper, its requirements and its parameters as JSON schema."
    )
    procedures: dict[str, Any] = Field(description="Procedures by name: which stages run, on which networks.")
    sources: dict[str, Any] = Field(description="Sources of training batches by name.")
    transforms: dict[str, Any] = Field(description="Transforms by name: how weights are stored.")
    parts: dict[str, Any] = Field(
        description="Other parts of a spec and of an upload, such as `training`: their parameters as JSON schema."
    )
    networks: dict[str, Any] = Field(description="Networks by name.")
    tasks: dict[str, Any] = Field(
        description="Tasks by name, each with the labels that it reads, its default objectives and its main metric."
    )
