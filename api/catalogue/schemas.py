"""How the catalogue looks over HTTP."""

from typing import Any

from pydantic import ConfigDict, Field

from api.http.bodies import Shown


class CatalogueBody(Shown):
    """Everything that a job's spec may name."""

    model_config = ConfigDict(extra="allow")

    objectives: dict[str, Any] = Field(description="Losses, by name: paper, needs, and parameters as JSON schema.")
    procedures: dict[str, Any] = Field(description="Schedules of stages, by name.")
    sources: dict[str, Any] = Field(description="Where batches come from, by name.")
    transforms: dict[str, Any] = Field(description="How weights live, by name.")
    parts: dict[str, Any] = Field(
        description="The other parts of a spec and of an upload, such as `training`: their parameters as JSON schema."
    )
    networks: dict[str, Any] = Field(description="Networks, by name.")
    tasks: dict[str, Any] = Field(
        description="What networks are for, by name: the labels that are read, the usual objectives, the figure that counts."
    )
