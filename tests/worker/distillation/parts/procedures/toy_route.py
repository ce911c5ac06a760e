"""A teacher trained by the first stage, whose snapshots teach the stages after it."""

from dataclasses import replace

from worker.distillation.procedure import Procedure, Stage


class ToyRoute(Procedure):
    """The student learns from an early snapshot, then from the finished teacher."""

    def next(self, history, plan):
        if not history:
            label = ({"name": "cross_entropy"},)
            member = replace(plan.student, network="resnet8_cifar", options={}, objectives=label, initial=None)
            return Stage("teacher", {"student": member}, None, epochs=2, snapshots=(1,), phase="training_teacher")
        if len(history) == 1:
            return Stage("early", {"student": plan.student}, "stage:teacher@1", epochs=1)
        if len(history) == 2:
            member = replace(plan.student, initial="stage:early")
            return Stage("late", {"student": member}, "stage:teacher", epochs=1)
        return None
