"""What a run knows beside its running stage: everything that a resumed run needs of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torch import Tensor

from worker.distillation.procedure import StageResult


@dataclass
class BestWeights:
    """The best network so far, by its metric on the held-out images, as it would be deployed."""

    place: str
    epoch: int
    value: float
    """The task's main metric."""
    weights: dict[str, Tensor]
    objectives: dict[str, Tensor]
    """What its objectives add to the deployed network; empty where they add nothing."""


@dataclass
class RunState:
    """The state of a run between two steps. Every field is saved; a stage's own state is `StageRun.state_dict`."""

    history: list[StageResult] = field(default_factory=list)
    """Finished stages, in their order."""
    steps_before: int = 0
    """Steps of earlier stages, and of the running stage before its restarts."""
    generator_steps_before: int = 0
    """The same for steps that a source took by itself, such as a generator's."""
    restarts: int = 0
    """How often a stage has been restarted because its images had collapsed."""
    seconds: float = 0.0
    """Time that earlier attempts have used, up to the checkpoint that this state was read from."""
    phase_seconds: dict[str, float] = field(default_factory=dict)
    """The same time by phase."""
    best: BestWeights | None = None
    stopped_early: dict[str, Any] | None = None
    """By what and where the training was stopped before its end."""
    warnings: list[str] = field(default_factory=list)
    """Warnings that have been logged, and that the report repeats."""
    teacher_check: dict[str, Any] | None = None
    """What the check of the teacher found before the training."""
    random_states: list[dict[str, Any]] = field(default_factory=list)
    """The global random generators of each rank, at the checkpoint that this state was read from."""

    def done(self, steps: int, generator_steps: int, finished: bool) -> int:
        """A number that rises with every step and every end of a stage; of the running stage so much is done."""
        before = self.steps_before + self.generator_steps_before + len(self.history)
        return before + steps + generator_steps + (finished or self.stopped_early is not None)

    def state_dict(self) -> dict[str, Any]:
        """Parts of a checkpoint by name: `run`, and `best` in a part of its own, since it is large and seldom changes."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values["history"] = [asdict(result) for result in self.history]
        best = values.pop("best")
        return {"run": values} | ({"best": dict(vars(best))} if best is not None else {})

    @classmethod
    def from_state(cls, parts: Mapping[str, Any]) -> "RunState":
        """Undo `state_dict`; other parts of the checkpoint may be among `parts`.

        Raises:
            KeyError, TypeError: the parts are not those of this class.
        """
        values = dict(parts["run"])
        history = [StageResult(**result) for result in values.pop("history")]
        best = BestWeights(**parts["best"]) if "best" in parts else None
        if missing := {each.name for each in fields(cls)} - {"history", "best", *values}:
            raise KeyError(f"the part `run` lacks {', '.join(sorted(missing))}")
        return cls(history=history, best=best, **values)
