"""A regression of one feature map on another, through a connector that trains with the student."""

from dataclasses import dataclass

from torch import nn
from torch.nn.functional import mse_loss

from worker.distillation.introspection.tap_map import Taps
from worker.distillation.objective import Objective


class ToyHint(Objective):
    """Mean squared error after a 1x1 convolution with BatchNorm."""

    @dataclass(frozen=True)
    class Parameters:
        student: str
        teacher: str

    def taps(self, student, teacher):
        return Taps((self.settings.student,), (self.settings.teacher,))

    def build(self, context):
        channels = context.student.taps[self.settings.student].shape[1]
        target = context.teacher.taps[self.settings.teacher].shape[1]
        self.connector = nn.Sequential(nn.Conv2d(channels, target, 1), nn.BatchNorm2d(target))

    def forward(self, step):
        ours = self.connector(step.student.taps[self.settings.student])
        return {"distance": mse_loss(ours, step.need_teacher().taps[self.settings.teacher])}
