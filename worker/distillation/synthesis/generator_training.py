"""The training of a generator against a frozen teacher and, if it is adversarial, against the live students.

Shapes: B batch, Z latent size, C channels, H height, W width.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.data.transfers import sent
from worker.distillation.synthesis.collapse import CollapseWatch
from worker.distillation.synthesis.generator import Generator
from worker.distillation.synthesis.image_loss import ImageLoss
from worker.distillation.synthesis.live import evaluating


class GeneratorTraining:
    """A generator, its Adam optimiser, and the detection of its collapse.

    Gradients are taken with respect to the generator's parameters only; teacher and students receive none.
    """

    def __init__(
        self,
        generator: Generator,
        image_loss: ImageLoss,
        learning_rate: float,
        betas: tuple[float, float],
        gradient_norm: float | None = None,
        draws_in_evaluation: bool = False,
    ):
        """`gradient_norm`: the maximum norm of the gradient of all parameters; larger gradients are clipped to it.
        `draws_in_evaluation`: `images` uses the running statistics of the generator's normalisations."""
        self.generator = generator
        self.image_loss = image_loss
        self.gradient_norm = gradient_norm
        self.draws_in_evaluation = draws_in_evaluation
        self.parameters = list(generator.parameters())
        self.device = self.parameters[0].device
        self.optimizer = torch.optim.Adam(self.parameters, learning_rate, betas)
        self.watch = CollapseWatch(self.device)
        self.steps = 0
        self.terms: dict[str, Tensor] = {}

    def step(self, noise_BZ: Tensor, students: Mapping[str, nn.Module]) -> Tensor:
        """One generator step; returns its images (B, C, H, W) from before the update, detached. `students` are its
        adversaries, possibly none.

        Raises:
            Collapsed, Diverged: see `CollapseWatch`.
        """
        with torch.enable_grad():
            with self.image_loss.autocast():
                image = self.generator(sent(noise_BZ, self.device))
            seen, terms = self.image_loss.see(image, students)
            if terms:
                self._descend(terms)
        self.terms = {name: term.detach() for name, term in terms.items()}
        self.watch.see(seen)
        self.steps += 1
        self.watch.check(self.steps)
        return image.detach()

    @torch.no_grad()
    def images(self, noise_BZ: Tensor) -> Tensor:
        """Images (B, C, H, W) of the current generator; only the running statistics of its BatchNorm change, if any."""
        with self.image_loss.autocast(), evaluating([self.generator] if self.draws_in_evaluation else []):
            return self.generator(sent(noise_BZ, self.device))

    def metrics(self) -> dict[str, Tensor | float]:
        """The last step's unweighted terms, the metrics of the collapse detection (whose disagreement is relative to
        the logits' size, unlike the term of that name), and whether the precision is low."""
        shown = self.terms | self.watch.metrics()
        return {f"generator/{name}": value for name, value in shown.items()} | {
            "generator/bf16": float(self.image_loss.precision == torch.bfloat16),
        }

    def state_dict(self) -> dict[str, Any]:
        """State by kind of part."""
        return {
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "training": {"steps": self.steps, "terms": self.terms, "watch": self.watch.state_dict()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["training"]["steps"]
        self.terms = {name: term.to(self.device) for name, term in state["training"]["terms"].items()}
        self.watch.load_state_dict(state["training"]["watch"])

    def _descend(self, terms: Mapping[str, Tensor]) -> None:
        gradients = torch.autograd.grad(self.image_loss.total(terms), self.parameters)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        if self.gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.gradient_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
