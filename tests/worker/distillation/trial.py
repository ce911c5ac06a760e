"""One step of two small networks, for tests of objectives without a run."""

from dataclasses import dataclass

import torch
from torch import Tensor

from worker.distillation import networks, registry
from worker.distillation.catalogue.schema import schema
from worker.distillation.contract import InputContract
from worker.distillation.introspection.taps import Tapped
from worker.distillation.introspection.tracing import any_output
from worker.distillation.objective import BuildContext, Objective
from worker.distillation.parameters import parse
from worker.distillation.step import Batch, Outputs, Step
from worker.distillation.task import EVERY_TASK, MAP_TASKS

PAIRS = {
    "plain": ("lenet5", "lenet5_half", 1, 16),
    "residual": ("resnet8x4_cifar", "resnet8_cifar", 3, 8),
}
"""By name: teacher, student, channels, and height (= width)."""

STAND_INS = {
    "fsp": {"plain": ("lenet5", "lenet5"), "residual": ("resnet14_cifar", "resnet8_cifar")},
    "overhaul": {"plain": ("resnet8_cifar", "lenet5_half")},
}
"""Other teachers and students for objectives that refuse those of a pair (different channels, no BatchNorm)."""
MAP_NETWORKS = {"segmentation": "fpn", "depth": "fpn_depth"}
MAP_OPTIONS = ({"width": 8}, {"width": 4})
MAP_SIZE = 32
BOX_OPTIONS = (
    {"width": 6, "features": 12, "hidden": 24, "proposals": 40, "regions": 32},
    {"width": 4, "features": 8, "hidden": 16, "proposals": 40, "regions": 16},
)
BOX_SIZE = 64
DETECTION = ("detection",)


@dataclass(frozen=True)
class Setting:
    """The networks and images of a trial."""

    names: tuple[str, str]
    options: tuple[dict, dict]
    channels: int
    size: int

    @classmethod
    def of(cls, pair: str, objective: Objective) -> "Setting":
        """Those of a pair, or small networks for maps or boxes if the objective is for these alone."""
        *names, channels, size = PAIRS[pair]
        tasks = objective.active_needs.tasks
        if tasks == DETECTION:
            return cls(("tiny_faster_rcnn",) * 2, BOX_OPTIONS, channels, BOX_SIZE)
        if not set(tasks) & set(EVERY_TASK) and set(tasks) & set(MAP_TASKS):
            return cls((MAP_NETWORKS[tasks[0]],) * 2, MAP_OPTIONS, channels, MAP_SIZE)
        stand_ins = STAND_INS.get(type(objective).__module__.rpartition(".")[2], {})
        return cls(tuple(stand_ins.get(pair, names)), ({}, {}), channels, size)

    def build(self, who: int, classes: int):
        """The teacher (0) or the student (1) with random weights."""
        return networks.build(self.names[who], classes, contract_of(self.channels, self.size), self.options[who])


def contract_of(channels: int, size: int) -> InputContract:
    return InputContract(channels, size, size, (0.0,) * channels, (1.0,) * channels)


def objective_of(name: str, **values) -> Objective:
    method = registry.find("objectives", name)
    made = method(parse(method.Parameters, values))
    made.task = "detection" if method.needs.tasks == DETECTION else "classification"
    return made


def variants(name: str) -> list[dict]:
    """The default parameters of an objective, and each other value of each of its choices."""
    properties = schema(registry.find("objectives", name).Parameters)["properties"]
    choices = {
        key: rule.get("enum", [True, False] if rule.get("type") == "boolean" else [])
        for key, rule in properties.items()
    }
    return [{}] + [
        {key: value} for key, values in choices.items() for value in values if value != properties[key].get("default")
    ]


@dataclass
class Trial:
    """A teacher, a student with peers, and one objective, built for them."""

    teacher: Tapped
    student: Tapped
    objective: Objective
    batch: Batch
    peers: tuple[Outputs, ...] = ()

    @classmethod
    def of(
        cls, pair: str, objective: Objective, classes: int = 5, teacher_classes: int | None = None, samples: int = 4
    ) -> "Trial":
        torch.manual_seed(0)
        setting = Setting.of(pair, objective)
        channels, size = setting.channels, setting.size
        example = torch.zeros(2, channels, size, size)
        teacher = setting.build(0, teacher_classes or classes).eval().requires_grad_(False)
        student = setting.build(1, classes)
        batch = batch_of(channels, size, classes, samples)
        if "multi_label" in objective.active_needs.tasks and "label" in objective.active_needs.fields:
            batch.fields["label"] = (batch.fields["target"] > 0).float()
        tapped = [Tapped(each, example, check_output=any_output) for each in (teacher, student)]
        trial = cls(*tapped, objective, batch)
        trial.connect(example, classes)
        return trial

    def connect(self, example: Tensor, classes: int) -> None:
        taps = self.objective.taps(self.student.map, self.teacher.map)
        self.student.request(taps.student)
        self.teacher.request(taps.teacher)
        self.student.eval()
        with torch.no_grad():
            outputs = self.read(self.student, example)
            teachers = self.read(self.teacher, example, shared=outputs)
        self.peers = peers_of(len(self.batch.image), classes)
        networks = (self.student.network, self.teacher.network)
        self.objective.build(BuildContext(outputs, teachers, *networks, classes, examples=64, peers=len(self.peers)))
        if self.objective.active_needs.prepass:
            with torch.no_grad():
                image = self.batch.image.detach()
                self.objective.observe(Step(self.batch, Outputs(image.new_empty(0)), self.teacher(image)))
        self.student.train()

    def read(self, network, image, fields=(), shared=None) -> Outputs:
        """Outputs as the objective's task reads them."""
        return registry.find("tasks", self.objective.task)().read(network, image, dict(fields), shared)

    def step(self) -> Step:
        """A forward pass of both networks."""
        return self.step_on(self.batch)

    def step_on(self, batch: Batch) -> Step:
        """A forward pass of both networks on a batch."""
        needs, second_teacher = self.objective.active_needs, None
        if needs.tasks == DETECTION:
            student = self.read(self.student, batch.image, batch.fields)
            with torch.no_grad():
                return Step(batch, student, self.read(self.teacher, batch.image, batch.fields, student), progress=0.5)
        with torch.set_grad_enabled(needs.input_gradient):
            teacher = self.teacher(batch.image)
        images = {"student": batch.image}
        if needs.mirrored:
            images["mirrored"] = batch.image.flip(3)
        if "second_view" in needs.fields:
            images["second"] = batch.fields["second_view"]
            with torch.no_grad():
                second_teacher = self.teacher(batch.fields["second_view"])
        parts = self.student(torch.cat(list(images.values()))).chunks(len(images))
        outputs = dict(zip(images, parts, strict=True))
        rest = {"progress": 0.5, "second_teacher": second_teacher}
        return Step(batch, teacher=teacher, peers=self.peers, **outputs, **rest)

    def part(self, step: Step, rows: slice) -> Step:
        """The same step on some of its samples; runs a new forward pass if gradients to the image are needed."""
        part = part_of(step, rows)
        if not self.objective.active_needs.input_gradient:
            return part
        return self.step_on(Batch(part.batch.image.detach().requires_grad_(True), part.batch.fields))


def peers_of(samples: int, classes: int) -> tuple[Outputs, ...]:
    """Outputs of two other members of a cohort; does not change the global random state."""
    draw = torch.Generator().manual_seed(5)
    return tuple(Outputs(torch.randn(samples, classes, generator=draw)) for _ in range(2))


def batch_of(channels: int, size: int, classes: int, samples: int) -> Batch:
    """Noise with every field that an objective may need; add new kinds of fields here."""
    image = torch.randn(samples, channels, size, size)
    fields = {
        "label": torch.arange(samples) % classes,
        "index": torch.arange(samples),
        "target": torch.randn(samples, classes),
        "second_view": image + 0.1 * torch.randn_like(image),
        "privileged": torch.randn_like(image),
        "mask": torch.where(
            torch.rand(samples, size, size) < 0.2, 255, torch.randint(classes, (samples, size, size))
        ).byte(),
        "depth": torch.rand(samples, size, size).sub(0.2).clamp(min=0) * 5,
    }
    fields |= boxes_of(samples, size, classes)
    return Batch(image.requires_grad_(True), fields)


def boxes_of(samples: int, size: int, classes: int) -> dict[str, Tensor]:
    """Two objects and a crowd in each image but the last, which has none."""
    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.5], [0.4, 0.3, 0.9, 0.8], [0.0, 0.0, 1.0, 1.0]]) * size
    fields = {
        "boxes": boxes,
        "box_label": torch.tensor([0, 1, 1]).clamp(max=classes - 1),
        "crowd": torch.tensor([0, 0, 1]),
    }
    whole = {name: value.repeat(samples, *(1,) * value.ndim) for name, value in fields.items()}
    whole["boxes"][-1], whole["box_label"][-1], whole["crowd"][-1] = 0, -1, 0
    return whole


def part_of(step: Step, rows: slice) -> Step:
    """The same step on some of its samples."""

    def cut(outputs):
        return type(outputs)(outputs.logits[rows], {name: tap[rows] for name, tap in outputs.taps.items()})

    batch = Batch(step.batch.image[rows], {name: value[rows] for name, value in step.batch.fields.items()})
    peers = tuple(cut(peer) for peer in step.peers)
    seconds = {name: cut(each) for name in ("second", "second_teacher") if (each := getattr(step, name)) is not None}
    return Step(batch, cut(step.student), cut(step.teacher), peers, step.progress, step.number, **seconds)
