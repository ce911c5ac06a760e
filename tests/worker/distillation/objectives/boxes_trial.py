"""One step of two small detectors, for tests of objectives on boxes without a run."""

import torch

from tests.worker.distillation.trial import objective_of
from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.introspection.taps import Tapped
from worker.distillation.objective import BuildContext, Objective
from worker.distillation.step import Batch, Step
from worker.distillation.tasks.detection import Detection

CONTRACT = InputContract(3, 64, 64, (0.0,) * 3, (1.0,) * 3)
TASK = Detection()
STUDENT = {"width": 4, "features": 8, "hidden": 16, "proposals": 40, "regions": 16}
TEACHER = {"width": 6, "features": 12, "hidden": 24, "proposals": 40, "regions": 32}


def detector(options, name="tiny_faster_rcnn", seed=0):
    torch.manual_seed(seed)
    return networks.build(name, 2, CONTRACT, options)


def batch_of(samples=3) -> Batch:
    """Noise with two objects and a crowd in each image but the last, which has none."""
    image = torch.randn(samples, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    boxes = torch.tensor([[4.0, 6, 20, 30], [30, 20, 60, 52], [0, 0, 64, 64]]).repeat(samples, 1, 1)
    label = torch.tensor([0, 1, 1]).repeat(samples, 1)
    boxes[-1], label[-1] = 0, -1
    return Batch(image, {"boxes": boxes, "box_label": label, "crowd": torch.tensor([0, 0, 1]).repeat(samples, 1)})


class BoxesTrial:
    """A teacher, a student, and one objective that is built for them."""

    def __init__(
        self, objective: Objective | str, *, student=STUDENT, teacher=TEACHER, kinds=("tiny_faster_rcnn",) * 2, **values
    ):
        self.objective = objective_of(objective, **values) if isinstance(objective, str) else objective
        self.objective.task = "detection"
        networks_ = detector(student, kinds[0], 1), detector(teacher, kinds[1], 2)
        example = CONTRACT.blank(torch.device("cpu"))
        self.student, self.teacher = (Tapped(each, example, check_output=TASK.check_output) for each in networks_)
        self.teacher.network.eval().requires_grad_(False)
        taps = self.objective.taps(self.student.map, self.teacher.map)
        self.student.request(taps.student)
        self.teacher.request(taps.teacher)
        self.student.eval()
        with torch.no_grad():
            mine = TASK.read(self.student, example, {})
            theirs = TASK.read(self.teacher, example, {}, mine)
        torch.manual_seed(3)
        self.objective.build(BuildContext(mine, theirs, self.student.network, self.teacher.network, 2))
        self.student.train()
        self.batch = batch_of()

    def step(self, batch: Batch | None = None, seed: int = 4) -> Step:
        """A forward pass of both networks; the student draws with `seed`."""
        batch = batch or self.batch
        torch.manual_seed(seed)
        student = TASK.read(self.student, batch.image, batch.fields)
        with torch.no_grad():
            teacher = TASK.read(self.teacher, batch.image, batch.fields, student)
        return Step(batch, student, teacher)


def total(terms):
    return sum(terms.values())
