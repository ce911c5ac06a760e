"""One network in training, with its objectives, optimisers and transforms."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.compression.member_transforms import MemberTransforms, TransformContext
from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.taps import Tapped, parameters_through
from worker.distillation.procedure import Member
from worker.distillation.step import Outputs, Step
from worker.distillation.trainer.checkpoint import snapshot
from worker.distillation.trainer.objective_sum import Composition, ConnectContext
from worker.distillation.trainer.relative_rates import factors
from worker.distillation.trainer.weight_average import RunningAverage
from worker.distillation.training import Training
from worker.distillation.transformed_network import Entry


class MemberRun:
    """A member of a running stage."""

    def __init__(
        self,
        member: Member,
        network: nn.Module,
        *,
        teacher: Tapped | None,
        training: Training,
        context: ConnectContext,
        transforming: TransformContext,
    ):
        """`network` already has its initial weights; `teacher` is the stage's teacher, of which this member's objectives
        request taps."""
        self.training = training
        rates = factors(network) if training.relative_rates else None
        self.transforms = MemberTransforms(member.transforms, network, transforming)
        self.tapped = Tapped(
            network, context.example, f"{member.network_pointer}/network", check_output=context.task.check_output
        )
        self.composition = Composition(member.objectives, member.pointer).to(context.example.device)
        self._freeze(member)
        self.network.eval()
        self.composition.connect(self.tapped, teacher, context)
        self.taught_by = teacher.network if teacher else None
        adversaries = self.composition.adversary_groups()
        trained = [*(p for p in network.parameters() if p.requires_grad), *self.composition.trained_parameters()]
        self.optimizer = training.make_optimizer(trained, rates)
        self.adversary_optimizer = torch.optim.Adam(adversaries) if adversaries else None
        decay = training.average_weights
        self.average = RunningAverage(network, decay) if decay is not None else None
        self.entries: list[Entry] = []
        """What to apply to a new network before the finished weights are loaded; set by `finalize`."""

    @property
    def network(self) -> nn.Module:
        return self.tapped.network

    def train_mode(self) -> None:
        """Set training mode, except for modules without trainable parameters: their BatchNorm statistics do not change."""
        self.network.train()
        self.composition.train()
        for module in self.network.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()

    def update(self, step: Step, total: int) -> tuple[Tensor, dict[str, Tensor]]:
        """One adversary step, if there is an adversary, and one student step; the stage has `total` steps.

        Returns:
            The loss and its terms by name, detached.
        """
        terms = self._update_adversary(step)
        with self.training.autocast(step.batch.image.device):
            loss, named = self.composition(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        step.batch.division.add_gradients(self.optimizer)
        self._clip()
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.learning_rate_at(step.number, total) * group["factor"]
        self.optimizer.step()
        self.transforms.after_step(self.network, (step.number + 1) / total)
        if self.average is not None:
            self.average.update(self.network)
        return loss.detach(), named | terms

    def finalize(self) -> None:
        """Leave plain weights in the network, and set it to evaluation mode."""
        self.network.eval()
        self.entries = self.transforms.finalize(self.network)
        self.network.requires_grad_(True)

    def deployed(self) -> nn.Module:
        """The network that would ship if the stage ended now; it may be the network in training."""
        return self.composition.deploy(self.network, self.taught_by)

    def deployed_objectives(self) -> dict[str, Tensor]:
        """State that the objectives add to the deployed network, on the CPU; empty if they add nothing."""
        return snapshot(self.composition.deployed_state())

    def weights(self) -> dict[str, Tensor]:
        """The network's weights on the CPU as if the stage ended now, with its transforms finalised."""
        return self.transforms.finalized(self.network.state_dict())[0]

    def finalized(self) -> tuple[dict[str, Tensor], list[Entry]]:
        """The same, with what to apply to a new network before these weights are loaded."""
        return self.transforms.finalized(self.network.state_dict())

    def averaged(self) -> dict[str, Tensor]:
        """The running average of the weights on the CPU, with transforms finalised; empty if there is none."""
        return self.transforms.finalized(self.average.values)[0] if self.average is not None else {}

    def state_dict(self) -> dict[str, Any]:
        """By kind of part: network, objectives, optimisers, and the recipes of the transforms."""
        adversary = self.adversary_optimizer.state_dict() if self.adversary_optimizer else None
        average = self.average.state_dict() if self.average else None
        return {
            "network": self.network.state_dict(),
            "objectives": self.composition.state_dict(),
            "optimizers": {"student": self.optimizer.state_dict(), "adversary": adversary, "average": average},
            "transforms": list(self.transforms.recipes),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.composition.load_state_dict(state["objectives"])
        self.optimizer.load_state_dict(state["optimizers"]["student"])
        if self.adversary_optimizer is not None:
            self.adversary_optimizer.load_state_dict(state["optimizers"]["adversary"])
        if self.average is not None:
            self.average.load_state_dict(state["optimizers"]["average"])

    def _clip(self) -> None:
        """Scale the gradient down to the longest allowed norm, if one is set."""
        if self.training.gradient_clip is not None:
            trained = [each for group in self.optimizer.param_groups for each in group["params"]]
            nn.utils.clip_grad_norm_(trained, self.training.gradient_clip)

    def _update_adversary(self, step: Step) -> dict[str, Tensor]:
        if self.adversary_optimizer is None:
            return {}
        detached = Step(
            batch=step.batch,
            student=step.student.detached(),
            teacher=step.teacher and step.teacher.detached(),
            peers=step.peers,
            progress=step.progress,
            number=step.number,
        )
        division = step.batch.division
        with self.training.autocast(step.batch.image.device), division.statistics():
            loss = self.composition.adversary_loss(detached)
        if loss is None:
            return {}
        loss = loss * division.share
        self.adversary_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        division.add_gradients(self.adversary_optimizer)
        self.adversary_optimizer.step()
        self.adversary_optimizer.zero_grad(set_to_none=True)
        return {"adversary": loss.detach()}

    def _freeze(self, member: Member) -> None:
        """Freeze parameters outside the member's `trains_through` and `trains_after`, if these are set."""
        if member.trains_through is None and member.trains_after is None:
            return
        parameters = dict(self.network.named_parameters())
        trained = set(parameters)
        if member.trains_through is not None:
            trained &= set(parameters_through(self.tapped, member.trains_through, "/procedure/guided"))
        if member.trains_after is not None:
            trained -= set(parameters_through(self.tapped, member.trains_after, "/procedure/guided"))
        if not trained:
            side = "before" if member.trains_through else "after"
            raise SpecError([Problem("/procedure/guided", f"the network has no parameters {side} this tap")])
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in trained)


def peers_of(name: str, outputs: Mapping[str, Outputs]) -> tuple[Outputs, ...]:
    """The detached outputs of the other members."""
    return tuple(other.detached() for key, other in outputs.items() if key != name)
