"""What confines an engine, said to whoever started it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """What is in force, and for what is not, why."""

    filesystem: str = "open"
    network: str = "shared"
    memory: str = "open"
    signals: str = "open"
    why: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether neither the files of others nor any network can be reached."""
        return self.filesystem != "open" and self.network != "shared"
