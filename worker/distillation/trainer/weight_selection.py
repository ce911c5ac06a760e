"""The choice of the student's weights that ship: the last, the best on held-out images, or their running average."""

from dataclasses import dataclass, replace

from torch import nn

from worker.distillation.data.images import Images
from worker.distillation.introspection.modes import modes_kept
from worker.distillation.trainer.lineage import Lineage
from worker.distillation.trainer.network_parts import average_part
from worker.distillation.trainer.run_state import BestWeights
from worker.distillation.trainer.stage_run import StageRun


@dataclass(frozen=True)
class Selected:
    """The network that ships, its checkpoint and why it was chosen; and the alternative network, if there is one."""

    network: nn.Module
    checkpoint: str
    why: str
    other_checkpoint: str = ""
    other: nn.Module | None = None


class WeightSelection:
    """Measures the student on held-out images after each epoch, and selects its weights at the end of the run."""

    def __init__(self, lineage: Lineage, validation: Images | None):
        self.lineage = lineage
        self.validation = validation
        self.task = lineage.job.task
        self.training = lineage.job.training

    def measure(self, run: StageRun) -> dict[str, float] | None:
        """Metrics of the network that would ship if this stage were the last; None if it is not a member of this stage."""
        member = run.members.get(self._member_name(run))
        if self.validation is None or member is None:
            return None
        network = member.deployed()
        with modes_kept(network):
            return self.task.evaluate(network, self.validation, self.training.batch_size)

    def better(
        self, run: StageRun, metrics: dict[str, float], epoch: int, best: BestWeights | None
    ) -> BestWeights | None:
        """The better of the best weights so far and the current weights, which have these `metrics`."""
        member = run.members[self._member_name(run)]
        if self.training.selection != "best" or not member.transforms.settled(run.number / run.total):
            return best
        place = self.lineage.student_place(run.stage)
        value = metrics[self.task.main_metric]
        if not self.task.better(value, best.value if best is not None and best.place == place else None):
            return best
        return BestWeights(
            place=place,
            epoch=epoch,
            value=value,
            weights=member.weights(),
            objectives=member.deployed_objectives(),
        )

    def select(self, place: str, best: BestWeights | None) -> Selected:
        """The weights to ship for the finished network at `place`."""
        best = best if best is not None and best.place == place else None
        checkpoints = self.lineage.checkpoints
        if best is not None:
            network = self.lineage.deployed(place, weights=best.weights, objectives=best.objectives)
            metric = self.task.main_metric.replace("_", " ")
            why = f"best {metric} ({best.value:.4f}) on {len(self.validation or ())} held-out training images"
            trained = Selected(network, f"epoch {best.epoch}", why)
        else:
            trained = Selected(self.lineage.deployed(place), "last", "the weights at the end of training")
        if average_part(place) not in checkpoints.frozen():
            return trained
        average = self.lineage.deployed(place, weights=checkpoints.thaw(average_part(place)))
        if self.training.selection != "average":
            return replace(trained, other_checkpoint="average", other=average)
        why = f"the running average of the weights, with decay {self.training.average_weights:g}"
        return Selected(
            network=average,
            checkpoint="average",
            why=why,
            other_checkpoint="last",
            other=trained.network,
        )

    def _member_name(self, run: StageRun) -> str:
        """The member of the running stage that would ship; empty if the network of another stage would."""
        stage, _, name = self.lineage.student_place(run.stage).partition("/")
        return name if stage == run.stage.name else ""
