"""Weights samples by the teacher's error over the whole training set, seen once before the first step."""

import torch
from torch.nn.functional import cross_entropy

from worker.distillation.objective import Objective, ObjectiveNeeds


class ToyPrepass(Objective):
    """Imitates the teacher where it is good."""

    needs = ObjectiveNeeds(fields=("label",), prepass=True)

    def build(self, context):
        self.register_buffer("worst", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def _error(self, step):
        return cross_entropy(step.need_teacher().logits, step.label, reduction="none")

    def observe(self, step):
        self.worst = torch.maximum(self.worst, self._error(step).max())
        self.seen += len(step.label)

    def forward(self, step):
        trust = 1 - self._error(step) / self.worst
        distance = (step.student.logits - step.need_teacher().logits).square().mean(1)
        return {"imitation": (trust * distance).mean()}
