"""The state of a run outside its running stage, as far as a resumed run needs it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torch import Tensor

from worker.distillation.procedure import StageResult


@dataclass
class BestWeights:
    """The best network so far by its metric on the held-out images, as it would be deployed."""

    place: str
    epoch: int
    value: float
    """The task's main metric."""
    weights: dict[str, Tensor]
    objectives: dict[str, Tensor]
    """State that its objectives add to the deployed network; empty if they add nothing."""


@dataclass
class RunState:
    """The state of a run between two steps. Every field is saved; the stage's state is in `StageRun.state_dict`."""

    history: list[StageResult] = field(default_factory=list)
    """Finished stages, in order."""
    steps_before: int = 0
    """Steps of earlier stages, and of the running stage before its restarts."""
    generator_steps_before: int = 0
    """The same for generator steps of a source."""
    restarts: int = 0
    """Number of restarts because of collapsed images."""
    seconds: float = 0.0
    """Time used by earlier attempts, up to the checkpoint from which this state was read."""
    phase_seconds: dict[str, float] = field(default_factory=dict)
    """The same, by phase."""
    best: BestWeights | None = None
    stopped_early: dict[str, Any] | None = None
    """Why and where training stopped before its end."""
    warnings: list[str] = field(default_factory=list)
    """Logged warnings, which the report repeats."""
    teacher_check: dict[str, Any] | None = None
    """Result of the teacher check before the training."""
    random_states: list[dict[str, Any]] = field(default_factory=list)
    """State of each rank's global random generators at the checkpoint from which this state was read."""

    def done(self, steps: int, generator_steps: int, finished: bool) -> int:
        """A number that increases with every step and every end of a stage; the arguments describe the running stage."""
        before = self.steps_before + self.generator_steps_before + len(self.history)
        return before + steps + generator_steps + (finished or self.stopped_early is not None)

    def state_dict(self) -> dict[str, Any]:
        """Parts of a checkpoint by name: `run`, and `best` as a separate part, because it is large and rarely changes."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values["history"] = [asdict(result) for result in self.history]
        best = values.pop("best")
        return {"run": values} | ({"best": dict(vars(best))} if best is not None else {})

    @classmethod
    def from_state(cls, parts: Mapping[str, Any]) -> "RunState":
        """Restore what `state_dict` returned; `parts` may contain other parts of the checkpoint.

        Raises:
            KeyError, TypeError: the parts are not those of this class.
        """
        values = dict(parts["run"])
        history = [StageResult(**result) for result in values.pop("history")]
        best = BestWeights(**parts["best"]) if "best" in parts else None
        if missing := {each.name for each in fields(cls)} - {"history", "best", *values}:
            raise KeyError(f"the part `run` lacks {', '.join(sorted(missing))}")
        return cls(history=history, best=best, **values)
