"""What is measured of a stage's networks at its end, for procedures that decide by it."""

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from worker.distillation.data.images import Images
from worker.distillation.errors import Problem, SpecError
from worker.distillation.export.measures import latency
from worker.distillation.export.portable import portable
from worker.distillation.introspection.modes import modes_kept
from worker.distillation.procedure import Stage, figure_of, kl_of, milliseconds_of
from worker.distillation.task import Task
from worker.distillation.trainer.lineage import Lineage


def appraise(
    stage: Stage,
    networks: Mapping[str, nn.Module],
    lineage: Lineage,
    task: Task,
    held_out: Images | None,
    batch_size: int,
) -> dict[str, float]:
    """The metrics that a stage asks for by `evaluated`, `compared` and `timed`; `networks` are its members as they would ship.

    Raises:
        SpecError: no images are held out to measure on.
    """
    if held_out is None and (stage.evaluated or stage.compared):
        raise SpecError([Problem("/dataset", "is needed: the procedure measures networks on a part that it holds out")])
    figures: dict[str, float] = {}
    for name, network in networks.items():
        with modes_kept(network):
            if held_out is not None:
                figures |= _on_images(stage, name, network, lineage, task, held_out, batch_size)
            if stage.timed:
                copied = portable(network).to(lineage.device)
                figures[milliseconds_of(name)] = latency(copied, lineage.job.contract, threads=1)["milliseconds"]
    return figures


def _on_images(
    stage: Stage, name: str, network: nn.Module, lineage: Lineage, task: Task, held_out: Images, batch_size: int
) -> dict[str, float]:
    """A member's figures on the held-out images: those of its task, and its distances from finished networks."""
    figures: dict[str, float] = {}
    if stage.evaluated:
        measured = task.evaluate(network, held_out, batch_size)
        figures |= {figure_of(name, figure): value for figure, value in measured.items()}
    for place in stage.compared:
        teacher = lineage.teacher_of(replace(stage, teacher=place))
        if teacher is None:
            raise RuntimeError(f"there is no network {place!r} to compare with")
        images = held_out if teacher.reads == "privileged" else replace(held_out, privileged=None)
        figures[kl_of(name, place)] = task.evaluate(network, images, batch_size, teacher)["teacher_kl"]
    return figures
