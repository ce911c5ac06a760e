"""The context of a stage: the job's task, data, input contract and device."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worker.distillation.contract import InputContract
from worker.distillation.data.images import Images
from worker.distillation.distributed.ranks import ALONE, Ranks
from worker.distillation.job import Job
from worker.distillation.task import Task
from worker.distillation.trainer.objective_sum import ConnectContext
from worker.distillation.training import Training


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """Values that all stages of a job share, except `training`, of which a stage may replace keys, and `restarts`."""

    task: Task
    contract: InputContract
    classes: int
    dataset: Images | None
    source: Mapping[str, Any]
    """The `source` of the job's spec."""
    training: Training
    device: torch.device
    ranks: Ranks = ALONE
    files: Mapping[str, Path] = field(default_factory=dict)
    """Uploaded files that methods read, by id."""
    restarts: int = 0
    graphs: bool = False
    """Whether a teacher on a GPU is replayed as a CUDA graph."""

    @classmethod
    def of(cls, job: Job, dataset: Images | None, device: torch.device, ranks: Ranks) -> "StageContext":
        """The context of a job whose stages train on `dataset`."""
        return cls(
            task=job.task,
            contract=job.contract,
            classes=job.classes,
            dataset=dataset,
            source=job.spec["source"],
            training=job.training,
            device=device,
            ranks=ranks,
            files=job.files,
            graphs=bool(job.values.get("cuda_graphs")),
        )

    def for_stage(self, training: Mapping[str, Any], restarts: int) -> "StageContext":
        """The context of one stage, in which `training` replaces keys of the job's training."""
        own = Training.from_spec(asdict(self.training) | dict(training))
        return replace(self, training=own, restarts=restarts)

    def connecting(self, peers: int) -> ConnectContext:
        """The context in which the objectives of all members connect."""
        return ConnectContext(
            example=self.example(),
            classes=self.classes,
            examples=self.dataset.examples if self.dataset is not None else None,
            peers=peers,
            task=self.task,
        )

    def example(self) -> Tensor:
        """Two blank images, used to find shapes."""
        return self.contract.blank(self.device)
