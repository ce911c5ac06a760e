"""Method: what objectives, sources, procedures, tasks and transforms have in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)


class Parametrised(Protocol[P_co]):
    """A method, as the holder of a `Parameters` dataclass."""

    @property
    def Parameters(self) -> type[P_co]: ...  # noqa: N802


class Settings:
    """The attribute of a method that holds its settings: an instance of its own class's `Parameters`."""

    def __get__(self, method: Parametrised[P], owner: type | None = None) -> P:
        raise AttributeError("a method has no settings before it is instantiated")


class Method:
    """Part of a job that a spec names, with parameters. The name is that of the class's file.

    `settings` are the values of the parameters. They are not called `parameters`, since an objective is an `nn.Module`,
    whose `parameters()` are the tensors that train.
    """

    paper: ClassVar[str] = ""
    when: ClassVar[Mapping[tuple[str, Any], Mapping[str, Any]]] = {}
    """Attributes of the class that change if a parameter has a value: `{("standardise", True): {"needs": ...}}`. If
    several entries match the settings, the first one counts."""

    @dataclass(frozen=True)
    class Parameters:
        """No parameters."""

    settings = Settings()

    def __init__(self, settings: Any = None):
        self.settings = self.Parameters() if settings is None else settings

    @property
    def name(self) -> str:
        """Its file's name, as in a job's spec."""
        return type(self).__module__.rpartition(".")[2]

    def effective(self, attribute: str) -> Any:
        """An attribute of the class, or its value with these settings (`when`)."""
        _, value = self._case(attribute)
        return value

    def decided_by(self, attribute: str) -> str | None:
        """The parameter whose value overrides the class's own attribute, or None."""
        parameter, _ = self._case(attribute)
        return parameter

    def _case(self, attribute: str) -> tuple[str | None, Any]:
        for (parameter, value), then in self.when.items():
            if attribute in then and getattr(self.settings, parameter) == value:
                return parameter, then[attribute]
        return None, getattr(self, attribute)
