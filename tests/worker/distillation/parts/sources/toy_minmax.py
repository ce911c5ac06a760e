"""A generator that looks for images on which the live student disagrees with the teacher, as DFAD does."""

import torch
from torch import nn

from worker.distillation.source import Source, SourceNeeds
from worker.distillation.step import Batch


class ToyMinmax(Source):
    """Warms up on the teacher's confidence, then trains every second step against the students."""

    needs = SourceNeeds(teacher=True, teacher_gradient=True)
    synthesises = True

    def build(self, context):
        super().build(context)
        contract = context.contract
        self.shape = (contract.channels, contract.height, contract.width)
        size = contract.channels * contract.height * contract.width
        self.generator = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, size), nn.Tanh())
        self.optimizer = torch.optim.Adam(self.generator.parameters(), lr=1e-2)
        self.rounds = 0

    def steps_per_epoch(self):
        return 4

    def generator_steps(self, number):
        return 3

    def generator_step(self, number, students):
        self._train(lambda image: -self.context.teacher(image).logits.softmax(1).amax(1).mean())

    def batch(self, position, students):
        if position.number % 2 == 0:
            self._train(lambda image: -self._disagreement(image, students))
        self.generator.train()
        with torch.no_grad():
            return Batch(self._draw())

    def _draw(self):
        return self.generator(torch.randn(self.context.batch_size, 4)).view(-1, *self.shape)

    def _train(self, loss):
        self.generator.train()
        self.optimizer.zero_grad()
        loss(self._draw()).backward()
        self.optimizer.step()
        self.rounds += 1

    def _disagreement(self, image, students):
        distances = []
        for student in students.values():
            modes = {module: module.training for module in student.modules()}
            parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
            student.eval().requires_grad_(False)
            distances.append((student(image).logits - self.context.teacher(image).logits).abs().mean())
            for parameter in parameters:
                parameter.requires_grad_(True)
            for module, training in modes.items():
                module.training = training
        return sum(distances)

    def state_dict(self):
        return {
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rounds": self.rounds,
        }

    def load_state_dict(self, state):
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rounds = state["rounds"]
