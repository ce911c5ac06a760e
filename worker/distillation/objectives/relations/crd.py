"""Contrastive representation distillation: contrast each image's embeddings with those of other classes."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError
from worker.distillation.losses.contrastive import contrast, moved, other_classes
from worker.distillation.losses.embeddings import EmbeddingObjective, embedding_of
from worker.distillation.objective import BuildContext, ObjectiveNeeds
from worker.distillation.parameters import Range, TapPair
from worker.distillation.precision import fp32
from worker.distillation.randomness import seed_for
from worker.distillation.step import Step

OF_CLASSES = ("classification", "embedding")


class ContrastiveRepresentation(EmbeddingObjective):
    """Noise-contrastive estimation between each network's embeddings and a memory of the other network's.

    Tian, Krishnan, Isola, "Contrastive representation distillation", arXiv:1910.10699. The defaults are those of the
    authors' code (HobbitLong/RepDistiller), which uses a weight of 0.8. Its constant Z is N times the first batch's
    mean of exponentials, and its noise is 1 / N, so that N cancels out: `means` holds Z / N, which stays fixed after
    the first batch. `queue` bounds the memory for large datasets, or datasets without an index. It holds the latest
    images (He et al., arXiv:1911.05722, section 3.2), including those of the batch, and the positive is the image's
    embedding by the other network in the same step. Its size is ours.
    """

    paper = "arXiv:1910.10699"
    needs = ObjectiveNeeds(fields=("label", "index"), prepass=True, batch_global=True, tasks=OF_CLASSES)
    when = {("memory", "queue"): {"needs": ObjectiveNeeds(fields=("label",), batch_global=True, tasks=OF_CLASSES)}}

    student_bank: Tensor
    teacher_bank: Tensor
    known: Tensor
    means: Tensor
    cursor: Tensor

    @dataclass(frozen=True)
    class Parameters:
        """The embeddings, and the negatives."""

        negatives: Annotated[
            int, Range(ge=1, le=1 << 20), "Number of images of other classes drawn for each image."
        ] = 16384
        temperature: Annotated[float, Range(ge=0.02), "Temperature: divides the cosines."] = 0.07
        dimensions: Annotated[int, Range(ge=1, le=65536), "Dimension of the embeddings."] = 128
        memory: Annotated[
            Literal["banks", "queue"], "A running average for each image, or a queue of the latest images."
        ] = "banks"
        momentum: Annotated[float, Range(ge=0, lt=1), "Share of an image's row in the bank that an update keeps."] = 0.5
        queue: Annotated[int, Range(ge=2, le=1 << 24), "Number of images in the queue."] = 65536
        tap: Annotated[
            TapPair | None, "The student's and the teacher's tap. If null: the inputs of the classifiers."
        ] = None

    def build(self, context: BuildContext) -> None:
        super().build(context)
        p = self.settings
        rows = p.queue if p.memory == "queue" else context.examples
        if rows is None or context.teacher is None:
            raise SpecError([Problem("/memory", "a bank needs a dataset of fixed size; choose `queue`")])
        widths = [
            embedding_of(outputs, tap).shape[1]
            for outputs, tap in zip((context.student, context.teacher), self.tap, strict=True)
        ]
        self.heads = nn.ModuleList(nn.Linear(width, p.dimensions) for width in widths)
        bound = 1 / math.sqrt(p.dimensions / 3)
        for name in ("student_bank", "teacher_bank"):
            self.register_buffer(name, torch.empty(rows, p.dimensions).uniform_(-bound, bound))
        self.register_buffer("known", torch.full((rows,), -1))
        self.register_buffer("means", torch.zeros(2))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.int64))
        self.seed = int(torch.randint(1 << 62, (), device="cpu"))

    def get_extra_state(self) -> Any:
        return self.seed

    def set_extra_state(self, state: Any) -> None:
        self.seed = state

    def observe(self, step: Step) -> None:
        self.known[step.batch.fields["index"]] = step.label

    def forward(self, step: Step) -> dict[str, Tensor]:
        p = self.settings
        with fp32(step.student.logits.device):
            pair = zip(self.heads, self.embeddings(step), strict=True)
            student, teacher = (F.normalize(head(x), dim=1) for head, x in pair)
            if p.memory == "queue":
                self._enqueue(student.detach(), teacher.detach(), step.label)
            draw = torch.Generator(student.device).manual_seed(seed_for(self.seed, step.number))
            rows, possible = other_classes(self.known, step.label, p.negatives, draw)
            if p.memory == "queue":
                positives = teacher.detach(), student.detach()
            else:
                index = step.batch.fields["index"]
                positives = self.teacher_bank[index], self.student_bank[index]
            terms = {
                "student": self._contrast(0, student, positives[0], self.teacher_bank, rows, possible),
                "teacher": self._contrast(1, teacher, positives[1], self.student_bank, rows, possible),
            }
            if p.memory == "banks":
                self._remember(student.detach(), teacher.detach(), step.batch.fields["index"])
            return terms

    def _contrast(self, side: int, x: Tensor, positive: Tensor, bank: Tensor, rows: Tensor, possible: Tensor) -> Tensor:
        cosines = torch.cat([(x * positive).sum(1, keepdim=True), (x @ bank.mT).gather(1, rows)], dim=1)
        logits = cosines / self.settings.temperature
        mean = torch.where(self.means[side] > 0, self.means[side], logits.detach().exp().mean())
        self.means[side] = mean
        return contrast(logits - mean.log(), possible)

    def _enqueue(self, student: Tensor, teacher: Tensor, label: Tensor) -> None:
        size = len(self.known)
        newest = torch.arange(min(len(label), size), device=label.device)
        slots = (self.cursor + newest) % size
        self.student_bank[slots], self.teacher_bank[slots] = student[-size:], teacher[-size:]
        self.known[slots] = label[-size:]
        self.cursor += len(newest)

    def _remember(self, student: Tensor, teacher: Tensor, index: Tensor) -> None:
        # not in place: the backward pass still reads the old rows
        self.student_bank = moved(self.student_bank, index, student, self.settings.momentum)
        self.teacher_bank = moved(self.teacher_bank, index, teacher, self.settings.momentum)
