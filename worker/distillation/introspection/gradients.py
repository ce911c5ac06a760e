"""Whether gradients flow through a network to its images."""

import torch
from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.taps import undisturbed


def gives_gradient(network: nn.Module, image_BCHW: Tensor) -> bool:
    """Whether the logits for these images have a finite gradient with respect to them; found by trying, in eval mode.

    The network and torch's generators are left as they were. A gradient of zero is one, as a constant network has.
    """
    with undisturbed(network, image_BCHW.device), torch.enable_grad():
        image = image_BCHW.detach().clone().requires_grad_()
        try:
            logits = network(image)
            (gradient,) = torch.autograd.grad(logits.sum(), image, allow_unused=True)
        except RuntimeError as error:
            if any(words in str(error) for words in NOT_DIFFERENTIABLE):
                return False
            raise
    return gradient is not None and (gradient.is_meta or bool(torch.isfinite(gradient).all()))


NOT_DIFFERENTIABLE = (
    "does not require grad",
    "derivative for",
    "must implement either the backward",
    "inference tensor",
)
"""How torch says that it cannot go back; whatever else it says, such as too little memory, is not about gradients."""


def require_gradient(teacher: nn.Module, image_BCHW: Tensor) -> None:
    """See that images can be made by what the teacher makes of them.

    Raises:
        SpecError: it gives outputs only.
    """
    if not gives_gradient(teacher, image_BCHW):
        words = "gives outputs only, and the source needs gradients through it"
        hint = "Choose the source `noise`, or `substitute` with any images as the dataset."
        raise SpecError([Problem("/teacher", words)], hint)
