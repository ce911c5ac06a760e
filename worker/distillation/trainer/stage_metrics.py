"""Metrics of a stage's networks at its end, for procedures that make decisions with them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from worker.distillation.data.images import Images
from worker.distillation.errors import Problem, SpecError
from worker.distillation.export.measures import latency
from worker.distillation.export.portable import portable
from worker.distillation.introspection.modes import modes_kept
from worker.distillation.procedure import Stage, estimate_of, kl_of, metric_of, milliseconds_of
from worker.distillation.trainer.lineage import Lineage
from worker.distillation.trainer.stage_run import StageRun


def measure_stage(run: StageRun, lineage: Lineage, held_out: Images | None) -> dict[str, float]:
    """The metrics that a finished stage requests with `evaluated`, `compared`, `timed` and `estimated`, of its members as they
    would ship.

    Raises:
        SpecError: no images are held out to measure on.
    """
    stage = run.stage
    if not (stage.evaluated or stage.compared or stage.timed or stage.estimated):
        return {}
    estimator = lineage.estimator("trials") if stage.estimated else None
    if held_out is None and (stage.evaluated or stage.compared):
        raise SpecError([Problem("/dataset", "is required: the procedure measures networks on held-out images of it")])
    metrics: dict[str, float] = {}
    networks = {name: member.deployed() for name, member in run.members.items()}
    for name, network in networks.items():
        with modes_kept(network):
            if estimator is not None and (found := estimator.estimate(network.eval())):
                metrics[estimate_of(name)] = found.agreement
            if held_out is not None:
                metrics |= _HeldOut(stage, lineage, held_out).measure(name, network)
            if stage.timed:
                copied = portable(network).to(lineage.device)
                metrics[milliseconds_of(name)] = latency(copied, lineage.job.contract, threads=1)["milliseconds"]
    return metrics


@dataclass(frozen=True)
class _HeldOut:
    """Measures members of a stage on the held-out images."""

    stage: Stage
    lineage: Lineage
    images: Images

    def measure(self, name: str, network: nn.Module) -> dict[str, float]:
        """A member's task metrics, and its KL divergences from finished networks."""
        metrics: dict[str, float] = {}
        if self.stage.evaluated:
            metrics |= {
                metric_of(name, metric): value for metric, value in self._evaluate(network, self.images).items()
            }
        for place in self.stage.compared:
            teacher = self.lineage.teacher_of(replace(self.stage, teacher=place))
            if teacher is None:
                raise RuntimeError(f"there is no network {place!r} to compare with")
            images = self.images if teacher.reads == "privileged" else replace(self.images, privileged=None)
            metrics[kl_of(name, place)] = self._evaluate(network, images, teacher)["teacher_kl"]
        return metrics

    def _evaluate(self, network: nn.Module, images: Images, teacher: nn.Module | None = None) -> Mapping[str, float]:
        job = self.lineage.job
        return job.task.evaluate(network, images, job.training.batch_size, teacher)
