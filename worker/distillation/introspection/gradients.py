"""What the choice of a source needs to know of a teacher: whether it is differentiable with respect to its input images, homogeneous in them, and has
BatchNorm layers."""

from typing import Any

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
    with undisturbed(network, image_BCHW.device):
        once, twice = network(image_BCHW), network(2 * image_BCHW)
    return isinstance(once, Tensor) and bool(
        torch.allclose(twice, 2 * once, rtol=1e-3, atol=1e-3 * float(once.abs().max()))
    )


def source_findings(network: nn.Module, image_BCHW: Tensor) -> dict[str, Any]:
    """The findings of an inspection by which a job's source and objectives are chosen: `batch_norm`, `differentiable`,
    `homogeneous`."""
    return {
        "batch_norm": any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()),
        "differentiable": gives_gradient(network, image_BCHW),
        "homogeneous": is_homogeneous(network, image_BCHW),
    }


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
