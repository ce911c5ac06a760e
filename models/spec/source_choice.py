"""Which source a job gets that names none, and why: by what its teacher and its dataset offer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.spec.catalogue import known
from models.spec.facts import Facts
from models.spec.task_checks import TASK

NAME = "auto"
MANY_CLASSES = 100
"""A generator's batch tells whether so many classes are in balance (ten images of each), and hardly more."""


@dataclass(frozen=True)
class Offer:
    """What a job has to make batches of; None is what is not known before an inspection."""

    teacher: bool
    dataset: bool
    dataset_classes: int | None
    labels: str | None
    classes: int | None
    gradient: bool | None
    batch_norm: bool | None

    @classmethod
    def of(cls, user: Mapping[str, Any], facts: Facts) -> "Offer":
        """Of a spec as its user wrote it, and what its inspections found."""
        teacher, dataset = facts.teacher, facts.dataset
        findings = (teacher.findings if teacher else None) or {}
        return cls(
            teacher=bool(user.get("teacher")),
            dataset=bool(user.get("dataset")),
            dataset_classes=dataset.classes if dataset else None,
            labels=dataset.labels if dataset else None,
            classes=teacher.classes if teacher else None,
            gradient=findings.get("differentiable"),
            batch_norm=findings.get("batch_norm"),
        )

    @property
    def unlabelled(self) -> bool:
        """A dataset without labels, or of one class for a teacher of several."""
        one_class = self.dataset_classes == 1 and (self.classes or 0) > 1
        return self.teacher and (self.labels == "none" or one_class)


@dataclass(frozen=True)
class Rule:
    """A source for the jobs that it suits; one whose source is not in the catalogue, or not for the task, is passed over."""

    source: str
    suits: Callable[[Offer], object]
    why: str


RULES = (
    Rule(
        "substitute",
        lambda offer: offer.dataset and offer.unlabelled,
        "the dataset has no labels, or one class where the teacher has several, so that its images serve without labels",
    ),
    Rule("dataset", lambda offer: offer.dataset, "a dataset is given"),
    Rule(
        "noise",
        lambda offer: offer.teacher and offer.gradient is False,
        "the teacher gives outputs and no gradient, by which images could be made; `substitute`, with any images as the "
        "dataset, does better",
    ),
    Rule(
        "fast_meta",
        lambda offer: offer.batch_norm,
        "the teacher has BatchNorm, whose statistics tell what its training images were like",
    ),
    Rule(
        "dfad",
        lambda offer: offer.gradient and (offer.classes or 0) > MANY_CLASSES,
        f"the teacher has no BatchNorm and more than {MANY_CLASSES} classes, too many to balance in a batch, as DAFL does",
    ),
    Rule(
        "dafl",
        lambda offer: offer.gradient,
        "the teacher has no BatchNorm to be imitated, and few enough classes for a batch to hold them all",
    ),
    Rule("dafl", lambda _: True, "nothing is known yet of the teacher, and it suits most"),
)
"""The first that suits is taken."""


def choose(user: Mapping[str, Any], facts: Facts) -> tuple[str, str]:
    """The name of a source for a spec that names none, and the sentence that says why."""
    offer, task = Offer.of(user, facts), user.get("task", TASK)
    made = [name for name, entry in known("sources").items() if task in entry["tasks"]]
    suiting = [rule for rule in RULES if rule.suits(offer)]
    rule = next((rule for rule in suiting if rule.source in made), RULES[-1])
    passed_over = f"{suiting[0].source}, which would suit what is offered, does not make batches for the task {task!r}"
    return rule.source, f"{rule.source}, since {rule.why if rule is suiting[0] else passed_over}"
