"""Matches the gradient of the loss with respect to the image."""

import torch
from torch.nn.functional import cross_entropy

from worker.distillation.objective import Objective, ObjectiveNeeds


class ToyInputGradient(Objective):
    """Distance of the two networks' input gradients, by double back-propagation."""

    needs = ObjectiveNeeds(fields=("label",), input_gradient=True)

    def forward(self, step):
        image = step.batch.image
        losses = [cross_entropy(outputs.logits, step.label) for outputs in (step.student, step.need_teacher())]
        (ours,) = torch.autograd.grad(losses[0], image, create_graph=True)
        (theirs,) = torch.autograd.grad(losses[1], image, retain_graph=True)
        return {"label": losses[0], "gradient": (ours - theirs.detach()).square().sum()}
