"""Whether a network is differentiable with respect to its input images, and whether it is homogeneous in them."""

import torch
from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.taps import undisturbed


def gives_gradient(network: nn.Module, image_BCHW: Tensor) -> bool:
    """Whether the logits for these images have a finite gradient with respect to the images, tested by a backward pass in
    eval mode.

    The network and torch's generators are not changed. A gradient of zero counts, such as that of a constant network.
    """
    with undisturbed(network, image_BCHW.device), torch.enable_grad():
        image = image_BCHW.detach().clone().requires_grad_()
        try:
            logits = network(image)
            (gradient,) = torch.autograd.grad(logits.sum(), image, allow_unused=True)
        except RuntimeError as error:
            if any(part in str(error) for part in NOT_DIFFERENTIABLE):
                return False
            raise
    return gradient is not None and (gradient.is_meta or bool(torch.isfinite(gradient).all()))


def is_homogeneous(network: nn.Module, image_BCHW: Tensor) -> bool:
    """Whether twice the input gives twice the output, as in networks of ReLU layers without biases, tested on these images in
    eval mode.

    The network and torch's generators are not changed.
    """
    with undisturbed(network, image_BCHW.device), torch.no_grad():
        once, twice = network(image_BCHW), network(2 * image_BCHW)
    if not isinstance(once, Tensor) or once.is_meta:
        return False
    return bool(torch.allclose(twice, 2 * once, rtol=1e-3, atol=1e-3 * float(once.abs().max())))


NOT_DIFFERENTIABLE = (
    "does not require grad",
    "derivative for",
    "must implement either the backward",
    "inference tensor",
)
"""Parts of torch's messages if a network is not differentiable; other errors, such as out of memory, are raised."""


def require_gradient(teacher: nn.Module, image_BCHW: Tensor) -> None:
    """Check that the teacher is differentiable, so that a source can synthesise images with its gradients.

    Raises:
        SpecError: it is not.
    """
    if not gives_gradient(teacher, image_BCHW):
        message = "is not differentiable, but the source needs gradients through the teacher"
        hint = "Choose the source `noise`, or `substitute` with any images as the dataset."
        raise SpecError([Problem("/teacher", message)], hint)
