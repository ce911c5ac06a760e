"""The training of a generator against a frozen teacher and, if it is an adversary, the live students.

Shapes: B batch, Z latent size, C channels, H height, W width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.step import Outputs
from worker.distillation.synthesis import losses
from worker.distillation.synthesis.collapse import CollapseWatch
from worker.distillation.synthesis.generator import Generator
from worker.distillation.synthesis.live import evaluating
from worker.distillation.taps import Tapped, penultimate


@dataclass(frozen=True)
class Weights:
    """What the terms of the generator's loss are multiplied by; a term of weight 0 is not computed."""

    one_hot: float = 0.0
    information_entropy: float = 0.0
    activation: float = 0.0
    adversarial: float = 0.0


class GeneratorTraining:
    """A generator, its Adam optimiser, and the watch for its collapse.

    Gradients are taken with respect to the generator's parameters only: none reaches the teacher's or the students'.
    """

    def __init__(
        self, generator: Generator, teacher: Tapped, weights: Weights, learning_rate: float, precision: torch.dtype
    ):
        self.generator, self.teacher, self.weights, self.precision = generator, teacher, weights, precision
        self.parameters = list(generator.parameters())
        self.device = self.parameters[0].device
        self.optimizer = torch.optim.Adam(self.parameters, learning_rate)
        self.watch = CollapseWatch(self.device)
        self.feature_tap = penultimate(teacher) if weights.activation else None
        if self.feature_tap:
            teacher.request([self.feature_tap])
        self.steps = 0
        self.terms: dict[str, Tensor] = {}

    def step(self, noise_BZ: Tensor, students: Mapping[str, nn.Module]) -> Tensor:
        """One step of the generator; gives its images (B, C, H, W), detached. `students` are its adversaries, maybe none.

        Raises:
            Collapsed, Diverged: see `CollapseWatch`.
        """
        adversaries = list(students.values()) if self.weights.adversarial else []
        low = self.precision == torch.bfloat16
        with torch.enable_grad():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=low), evaluating(adversaries):
                image = self.generator(noise_BZ.to(self.device))
                judged = self.teacher(image)
                answers = [logits_of(student(image)) for student in adversaries]
            terms = self._terms(judged, answers)
            if terms:
                self._descend(terms)
        self.terms = {name: term.detach() for name, term in terms.items()}
        self.watch.see(judged.logits.detach().float())
        self.steps += 1
        self.watch.check(self.steps)
        return image.detach()

    @torch.no_grad()
    def label(self, image_BCHW: Tensor) -> Tensor:
        """The teacher's logits (B, K), in full precision."""
        with torch.autocast(self.device.type, enabled=False):
            return self.teacher(image_BCHW).logits

    def metrics(self) -> dict[str, Tensor | float]:
        """The last step's unweighted terms, the balance of classes from 0 to 1, and whether the precision is low."""
        return {f"generator/{name}": term for name, term in self.terms.items()} | {
            "generator/class_balance": self.watch.balance,
            "generator/bf16": float(self.precision == torch.bfloat16),
        }

    def state_dict(self) -> dict[str, Any]:
        """By kind of part."""
        return {
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "training": {"steps": self.steps, "terms": self.terms, "watch": self.watch.state_dict()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Undo `state_dict`."""
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["training"]["steps"]
        self.terms = {name: term.to(self.device) for name, term in state["training"]["terms"].items()}
        self.watch.load_state_dict(state["training"]["watch"])

    def _descend(self, terms: Mapping[str, Tensor]) -> None:
        loss = torch.stack([getattr(self.weights, name) * term for name, term in terms.items()]).sum()
        for parameter, gradient in zip(self.parameters, torch.autograd.grad(loss, self.parameters), strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _terms(self, judged: Outputs, answers: list[Tensor]) -> dict[str, Tensor]:
        weights, logits = self.weights, judged.logits.float()
        terms = {}
        if weights.one_hot:
            terms["one_hot"] = losses.one_hot(logits)
        if weights.information_entropy:
            terms["information_entropy"] = losses.information_entropy(logits)
        if self.feature_tap:
            terms["activation"] = losses.activation(judged.taps[self.feature_tap].float())
        if answers:
            each = [losses.adversarial(answer.float(), logits) for answer in answers]
            terms["adversarial"] = torch.stack(each).mean()
        return terms


def logits_of(output: Outputs | Tensor) -> Tensor:
    """The logits of a network's answer, tapped or bare."""
    return output.logits if isinstance(output, Outputs) else output
