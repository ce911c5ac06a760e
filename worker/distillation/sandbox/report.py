"""The report of the sandbox in force, which the engine sends to the worker."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """The restrictions in force, and the reasons for those that are not."""

    filesystem: str = "open"
    network: str = "shared"
    memory: str = "open"
    signals: str = "open"
    why: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether both files and network are restricted."""
        return self.filesystem != "open" and self.network != "shared"
