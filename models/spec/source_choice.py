"""The choice of a source for a job that names none, from the properties of its teacher and dataset; which others are tried; and
what its students learn from the teacher."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.spec.catalogue import effective, known
from models.spec.facts import Facts
from models.spec.task_checks import TASK
from models.spec.teacher_spec import is_trained_first

NAME = "auto"
MANY_CLASSES = 100
"""Maximum number of classes for which a generator's batch can show class balance (about ten images of each)."""


@dataclass(frozen=True)
class Offer:
    """The properties of a job's inputs that decide its source; None for those that only an inspection can tell."""

    teacher: bool
    dataset: bool
    dataset_classes: int | None
    labels: str | None
    classes: int | None
    gradient: bool | None
    batch_norm: bool | None

    @classmethod
    def of(cls, user: Mapping[str, Any], facts: Facts) -> "Offer":
        """From a spec as sent, and the findings of inspections."""
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
        """Whether the dataset has no labels, or one class while the teacher has several."""
        one_class = self.dataset_classes == 1 and (self.classes or 0) > 1
        return self.teacher and (self.labels == "none" or one_class)


@dataclass(frozen=True)
class Rule:
    """A source, and the condition for it. A rule is skipped if its source is not in the catalogue or not for the
    task."""

    source: str
    suits: Callable[[Offer], object]
    why: str


RULES = (
    Rule(
        "substitute",
        lambda offer: offer.dataset and offer.unlabelled,
        "the dataset has no labels, or one class while the teacher has several, so its images are used without labels",
    ),
    Rule("dataset", lambda offer: offer.dataset, "a dataset is given"),
    Rule(
        "noise",
        lambda offer: offer.teacher and offer.gradient is False,
        "the teacher is not differentiable, so no images can be synthesised with its gradients; `substitute` with any "
        "images as the dataset gives better results",
    ),
    Rule(
        "fast_meta",
        lambda offer: offer.batch_norm,
        "the teacher has BatchNorm layers, whose statistics describe its training images",
    ),
    Rule(
        "dfad",
        lambda offer: offer.gradient and (offer.classes or 0) > MANY_CLASSES,
        f"the teacher has no BatchNorm and more than {MANY_CLASSES} classes, too many for DAFL to balance in one batch",
    ),
    Rule(
        "procedural",
        lambda offer: offer.gradient,
        "the teacher has no BatchNorm, whose statistics would describe its training images",
    ),
    Rule(
        "dafl",
        lambda offer: offer.gradient,
        f"the teacher has no BatchNorm, and at most {MANY_CLASSES} classes, few enough to balance in one batch",
    ),
    Rule("dafl", lambda _: True, "the teacher is not inspected yet, and dafl suits most teachers"),
)
"""The first rule whose condition holds applies."""
TRIALS = "source_trials"
ALSO_TRIED = {"fast_meta": ("procedural",), "dfad": ("procedural",), "procedural": ("dafl",), "dafl": ("procedural",)}
"""The sources that are tried besides a chosen one, in a job that names neither source nor procedure."""


def trials(source: str, user: Mapping[str, Any]) -> tuple[dict[str, Any], str] | None:
    """The procedure that tries other sources besides the chosen one, and the reason; None if the job names a procedure or
    a teacher that it trains first, or if there are no others to try."""
    names = ALSO_TRIED.get(source, ())
    entry = known("procedures").get(TRIALS)
    counts_epochs = bool((user.get("training") or {}).get("epochs"))
    if user.get("procedure") or not names or entry is None or is_trained_first(user.get("teacher")) or counts_epochs:
        return None
    if user.get("task", TASK) not in entry["needs"]["tasks"]:
        return None
    why = f"{TRIALS}, because no source is named, and which one suits the teacher is told by trying {source} and {', '.join(names)}"
    return {"name": TRIALS, "sources": list(names)}, why


def choose(user: Mapping[str, Any], facts: Facts) -> tuple[str, str]:
    """The name of a source for a spec that names none, and the reason as a sentence."""
    offer, task = Offer.of(user, facts), user.get("task", TASK)
    for_task = [name for name, entry in known("sources").items() if task in entry["tasks"]]
    suitable = [rule for rule in RULES if rule.suits(offer)]
    rule = next((rule for rule in suitable if rule.source in for_task), RULES[-1])
    skipped = f"{suitable[0].source}, the first choice for these inputs, does not support the task {task!r}"
    return rule.source, f"{rule.source}, because {rule.why if rule is suitable[0] else skipped}"


STANDARDISED = {"name": "kd", "temperature": 2.0, "standardise": True}
"""KD for homogeneous teachers: the size of their logits is that of the image, which tells nothing about its class."""


def of_outputs_alone(usual: Sequence[Mapping[str, Any]], facts: Facts) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The objectives of a source without labels, and the reason if they aren't the source's `usual` ones."""
    least = effective("objectives", STANDARDISED, "needs")["minimum_classes"]
    by_kd = all(one["name"] == STANDARDISED["name"] for one in usual)
    teachers = [facts.teacher, *facts.others] if facts.teacher else []
    homogeneous = teachers and all((each.findings or {}).get("homogeneous") for each in teachers)
    if by_kd and homogeneous and teachers[0].classes >= least:
        why = (
            "kd of standardised logits, because the teacher is homogeneous: the size of its logits is that of the image"
        )
        return [STANDARDISED], {"/objectives": why}
    return [dict(one) for one in usual], {}
