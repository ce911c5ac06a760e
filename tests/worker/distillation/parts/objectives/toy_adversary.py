"""A discriminator of logits with an optimiser of its own."""

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from worker.distillation.objective import Objective


class ToyAdversary(Objective):
    """The student fools a discriminator that tells its logits from the teacher's."""

    def build(self, context):
        classes = context.student.logits.shape[1]
        self.discriminator = nn.Sequential(nn.Linear(classes, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

    def adversary_parameters(self):
        return self.discriminator.parameters()

    def adversary_loss(self, step):
        assert not step.student.logits.requires_grad
        real, fake = (self.discriminator(outputs.logits) for outputs in (step.need_teacher(), step.student))
        return cross_entropy(real, torch.ones_like(real)) + cross_entropy(fake, torch.zeros_like(fake))

    def forward(self, step):
        fake = self.discriminator(step.student.logits)
        return {"fooling": cross_entropy(fake, torch.ones_like(fake))}
