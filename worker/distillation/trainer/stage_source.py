"""The source of a stage's batches, built for the stage's objectives."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from worker.distillation import registry
from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.gradients import require_gradient
from worker.distillation.introspection.taps import Tapped
from worker.distillation.procedure import Stage
from worker.distillation.randomness import seed_for
from worker.distillation.source import Source, SourceContext, check_fields, taught
from worker.distillation.step import Batch
from worker.distillation.trainer.objective_checks import check_division, check_task
from worker.distillation.trainer.objective_sum import Composition
from worker.distillation.trainer.stage_context import StageContext


def build_source(
    stage: Stage, compositions: Sequence[Composition], teacher: Tapped | None, context: StageContext
) -> Source:
    """The stage's source, or else the job's, built to give the batch fields that a stage's objectives need.

    Raises:
        SpecError: the source cannot give them, or it or an objective does not fit the job.
    """
    source: Source = registry.make("sources", stage.source or context.source, "/source")
    fields = tuple(sorted({name for composition in compositions for name in composition.fields}))
    check_fields(source, fields)
    for composition in compositions:
        check_division(composition, source, context.ranks.size)
        check_task(composition, source, context.task, context.classes)
    if context.task.field in fields and context.dataset is not None and not source.ignores_labels:
        context.task.check_labels(context.dataset, context.classes, "/dataset")
    if teacher is not None and source.needs.teacher_gradient:
        require_gradient(teacher.network, context.contract.blank(context.device))
    again = ("restart", context.restarts) if context.restarts else ()
    source.build(
        SourceContext(
            teacher=teacher,
            contract=context.contract,
            classes=context.classes,
            dataset=context.dataset,
            batch_size=context.training.batch_size,
            total_steps=stage.steps,
            sampler=next((each.sampler for each in compositions if each.sampler), None),
            fields=fields,
            seed=seed_for(context.training.seed, stage.seeded_by, "source", *again),
            device=context.device,
            teacher_taps=bool(teacher and teacher.requested),
            ranks=context.ranks,
            files=context.files,
            restarts=context.restarts,
            task=context.task.name,
        )
    )
    return source


def plain_batches(context: StageContext, source: Source) -> Iterator[Batch]:
    """The training images in order, without augmentation; the teacher labels them if the source ignores labels."""
    dataset = context.dataset
    assert dataset is not None
    for start in range(0, len(dataset), context.training.batch_size):
        part = slice(start, start + context.training.batch_size)
        fields = dataset.batch_fields(part)
        if dataset.privileged is not None:
            fields["privileged"] = dataset.privileged.normalise(dataset.privileged.pixels(part))
        batch = Batch(dataset.normalise(dataset.pixels(part)), fields)
        yield taught(batch, source.context) if source.ignores_labels else batch


def calibration_images(context: StageContext, source: Source, count: int) -> Tensor:
    """Images (n, C, H, W) for transforms that need some, normalised, at most `count`: training images without augmentation at even
    distances, or synthesised ones.

    Raises:
        SpecError: the source has no images that resemble those that the student is for.
    """
    synthesised = source.calibration(count) if source.synthesises and source.calibrates else None
    if synthesised is not None:
        return synthesised
    dataset = context.dataset
    if dataset is None or not source.calibrates:
        words = "needs images to measure activations on, and the source has none that resemble real ones"
        raise SpecError([Problem("/transforms", words)], "Use a dataset, or a source that synthesises images.")
    chosen = torch.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().long()
    return dataset.normalise(dataset.pixels(chosen.to(dataset.device)))
