"""The rows of the comparison: which losses and schedules, with which weights, and the source of the weights.

Weights are those of the paper or of its authors' code, else the default, else ours. None was chosen by the results here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Spec = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of a table.

    `teachers` is the number of given teachers, and `taught` how several are combined. `reads` is the network whose accuracy
    the row shows: `student` (the one that ships), the name of another network that the run keeps, or `cohort` (the mean of
    all). `over` names the row that it is compared with, besides plain training and `kd`.
    """

    name: str
    title: str
    group: str
    why: str
    objectives: tuple[Spec, ...]
    procedure: Spec = field(default_factory=lambda: {"name": "direct"})
    source: Spec = field(default_factory=dict)
    training: Spec = field(default_factory=dict)
    teachers: int = 1
    taught: Spec = field(default_factory=dict)
    reads: str = "student"
    over: str = "kd"


def named(name: str, weight: Any = 1.0, **parameters: Any) -> Spec:
    return {"name": name, "weight": weight, **parameters}


CE = named("cross_entropy")
KD = (named("cross_entropy", 0.1), named("kd", 0.9, temperature=4.0))
WARM_UP = 20 / 240
"""The authors of DKD and ReviewKD raise the weight over the first 20 of 240 epochs."""


def rising(weight: float) -> Spec:
    return {"schedule": "linear", "start": 0.0, "end": weight, "until": WARM_UP}


LOGITS = "Logits"
FEATURES = "Features"
RELATIONS = "Relations between samples"
ALONE = "Without a teacher"
ADVERSARY = "Adversary"
TOGETHER = "Together with KD"
INVESTIGATED = "Investigated"


def objectives() -> Iterator[Row]:
    """The first table: one stage, cross-entropy and the method."""
    yield Row("plain", "plain training", "", "", (CE,), teachers=0)
    yield Row("kd", "KD", "", "CE 0.1, KD 0.9, T = 4 (RepDistiller)", KD)

    def one(name: str, title: str, group: str, why: str, *more: Spec, **rest: Any) -> Row:
        return Row(name, title, group, why, (CE, *more), **rest)

    yield Row(
        "kd_standardised", "KD, logits standardised", LOGITS, "CE 0.1, KD 9, T = 2 (authors)",
        (named("cross_entropy", 0.1), named("kd", 9.0, temperature=2.0, standardise=True)),
    )  # fmt: skip
    yield one("dkd", "DKD", LOGITS, "1, beta 8, T = 4 (mdistiller), raised over 1/12", named("dkd", rising(1.0)))
    yield one("dkd_cold", "DKD, no warm-up", LOGITS, "the same from the first step", named("dkd"))
    yield one("dist", "DIST", LOGITS, "2, T = 4 (authors, CIFAR)", named("dist", 2.0))
    yield Row(
        "multi_level",
        "MLLD, corrected",
        LOGITS,
        "1, both views on the labels (authors); the views are identical here",
        (named("cross_entropy", second_view=True), named("multi_level")),
    )
    yield one("logit_l2", "squared distance of logits", LOGITS, "1 (default)", named("logit_distance", norm="l2"))
    for form, title in (("soft", "born-again, soft"), ("cwtm", "CWTM"), ("dkpp", "DKPP")):
        yield one(f"born_again_{form}", title, LOGITS, "1, T = 1 (paper)", named("born_again", form=form))

    yield one("hint", "FitNets' hint, one stage", FEATURES, "100 (RepDistiller)", named("hint", 100.0))
    for map_, title in (("sum", "sum"), ("sum_power", "sum of squares"), ("max_power", "largest square")):
        yield one(
            f"at_{map_}", f"AT, {title}", FEATURES, "1,000 (authors' code)",
            named("attention_transfer", 1000.0, map=map_),
        )  # fmt: skip
    yield one("at_gradient", "AT, gradient", FEATURES, "1 (ours)", named("attention_gradient"))
    yield one(
        "at_symmetry", "AT, gradient, symmetry", FEATURES, "1 (ours)",
        named("attention_gradient", against="symmetry"), teachers=0,
    )  # fmt: skip
    for kernel, weight in (("linear", 50.0), ("polynomial", 50.0), ("gaussian", 100.0)):
        why = f"{weight:g} ({'authors' if kernel == 'polynomial' else 'unverified'})"
        yield one(f"nst_{kernel}", f"NST, {kernel}", FEATURES, why, named("nst", weight, kernel=kernel))
    yield one("fsp", "FSP", FEATURES, "1 (default)", named("fsp"))
    yield one("ab", "AB, one stage", FEATURES, "1 (authors' scale)", named("activation_boundary"))
    yield one("overhaul", "OFD", FEATURES, "1 (authors' scale)", named("overhaul"))
    yield one(
        "review", "ReviewKD", FEATURES, "1 (ours; 0.6 to 8 in theirs), raised over 1/12", named("review", rising(1.0))
    )
    yield Row(
        "simkd", "SimKD (ships more)", FEATURES, "1 alone, on vectors (authors; no map fits)",
        (named("similarity_head", vectors=True),),
    )  # fmt: skip

    crd = named("crd", 0.8, negatives=900)
    yield one("crd", "CRD", RELATIONS, "0.8 (authors); 900 negatives, all that there are", crd)
    yield one("rkd", "RKD", RELATIONS, "25 distance, 50 angle (RepDistiller)", named("relational"))
    yield one("darkrank_soft", "DarkRank, soft", RELATIONS, "16 (authors)", named("darkrank", 16.0))
    yield one("darkrank_hard", "DarkRank, hard", RELATIONS, "1 (ours)", named("darkrank", form="hard"))

    for others in (1, 2, 3):
        drawn = {"sampler": "per_class", "same_class_images": others}
        yield one(
            f"bake_{others}", f"BAKE, M = {others}", ALONE, "1, T = 4, omega 0.5 (authors)",
            named("bake"), source=drawn, teachers=0, over=f"sampler_{others}",
        )  # fmt: skip
        yield one(f"sampler_{others}", f"BAKE's sampler alone, M = {others}", ALONE, "", source=drawn, teachers=0)

    for form, title in (("softmax", "CGAN"), ("lsgan", "LSGAN")):
        yield one(
            f"adversary_{form}", title, ADVERSARY, "L1 1, adversary 0.1 (ours)",
            named("conditional_adversarial", form=form), over="l1",
        )  # fmt: skip
    yield one("l1", "L1 of the logits alone", ADVERSARY, "1", named("conditional_adversarial", adversarial=0.0))

    for name, title, spec in (
        ("hint", "FitNets' hint, one stage", named("hint", 0.5)),
        ("at", "AT, sum of squares", named("attention_transfer", 100.0)),
        ("nst", "NST, polynomial", named("nst", 2.5)),
        ("ab", "AB, one stage", named("activation_boundary", 0.1)),
        ("review", "ReviewKD", named("review", rising(0.1))),
    ):
        why = f"{spec['weight'] if name != 'review' else 0.1:g}: starts at about the size of the cross-entropy"
        yield one(f"{name}_light", f"{title}, lighter", INVESTIGATED, why, spec)

    added = (
        ("at", "AT", named("attention_transfer", 1000.0)),
        ("nst", "NST, polynomial", named("nst", 50.0)),
        ("crd", "CRD", crd),
        ("rkd", "RKD", named("relational")),
    )
    for name, title, spec in added:
        yield Row(f"kd_{name}", f"KD + {title}", TOGETHER, "KD's and the method's own", (*KD, spec))


CHAIN = "Assistants"
WEANED = "Teachers trained on the same 1,000 images"
GENERATIONS = "Generations"
COHORT = "Cohorts"
STAGES = "Two stages"
LONGER = "More steps"
MANY = "Several teachers"
FULL, HALF = {"network": "lenet5"}, {"network": "lenet5_half"}


def procedures() -> Iterator[Row]:
    """The second table: several stages or networks."""
    steps = {"steps": 1200}
    yield Row("plain_2", "plain training, twice as long", LONGER, "", (CE,), training=steps, teachers=0)
    yield Row("kd_2", "KD, twice as long", LONGER, "", KD, training=steps)

    yield Row(
        "fitnets", "FitNets", STAGES, "hint, then CE and KD that fades, T = 3 (authors)", KD,
        {"name": "two_stage", "preset": "fitnets"},
    )  # fmt: skip
    for name, title, first in (
        ("ab", "AB", named("activation_boundary")), ("fsp", "FSP", named("fsp")),
    ):  # fmt: skip
        schedule = {"name": "two_stage", "first": [first], "fraction": 0.125}
        yield Row(f"{name}_then_plain", f"{title}, then labels", STAGES, "1/8 of the steps (authors)", (CE,), schedule)
        yield Row(f"{name}_then_kd", f"{title}, then KD", STAGES, "1/8 of the steps (authors)", KD, schedule)

    for count, combine in ((2, "probabilities"), (3, "probabilities"), (3, "logits")):
        yield Row(
            f"kd_{count}_{combine}",
            f"KD from {count} LeNet-5, mean of {combine}",
            MANY,
            "KD's",
            KD,
            teachers=count,
            taught={"combine": combine, "temperature": 4.0},
        )
    yield Row(
        "takd_1",
        "TAKD, LeNet-5 between",
        CHAIN,
        "KD in every link",
        KD,
        {"name": "assistant", "assistants": [FULL]},
        over="kd_2",
    )
    yield Row(
        "takd_2", "TAKD, LeNet-5 and LeNet-5-half between", CHAIN, "KD in every link", KD,
        {"name": "assistant", "assistants": [FULL, HALF]},
    )  # fmt: skip
    for stop in (0.25, 0.5, 0.75):
        yield Row(
            f"eskd_{stop:g}", f"ESKD, stopped after {stop:.0%}", "Early stopping", "KD's", KD,
            {"name": "early_stopped", "stop": stop},
        )  # fmt: skip

    def own(name: str, title: str, schedule: Spec, **rest: Any) -> Row:
        whole = {"teacher": FULL, "teacher_epochs": 40} | schedule
        return Row(name, title, WEANED, "KD's", KD, whole, teachers=0, **rest)

    yield own("own_teacher", "KD from a LeNet-5", {"name": "route", "anchors": 1}, over="plain_2")
    yield own("own_half", "KD from a LeNet-5-half", {"name": "route", "anchors": 1, "teacher": HALF}, over="plain_2")
    for stop in (0.25, 0.5):
        yield own(
            f"early_teacher_{stop:g}", f"ESKD, its teacher after {stop:.0%}",
            {"name": "early_stopped", "stop": 1.0, "teacher_stop": stop}, over="own_teacher",
        )  # fmt: skip
    for anchors in (2, 4):
        intervals = {"name": "route", "anchors": anchors}
        yield own(f"rco_{anchors}", f"RCO, {anchors} anchors at equal intervals", intervals, over="own_teacher")
    for choice, over in (("equal", "own_teacher"), ("greedy", "rco_held_equal")):
        yield own(
            f"rco_held_{choice}",
            f"RCO, 4 anchors, {choice}, 100 images held out",
            {"name": "route", "anchors": 4, "choice": choice},
            training={"validation_fraction": 0.1},
            over=over,
        )

    soft = named("born_again")
    for name, title, losses in (("ban", "BAN", (soft,)), ("ban_l", "BAN + labels", (CE, soft))):
        for number, (which, reads) in enumerate(
            {"1": "generation_1", "2": "generation_2", "3": "student", "ensemble": "ensemble"}.items()
        ):
            yield Row(
                f"{name}_{which}",
                f"{title}, {'ensemble of the three' if which == 'ensemble' else f'generation {which}'}",
                GENERATIONS,
                "1, T = 1 (paper)",
                losses,
                {"name": "born_again", "generations": 3},
                teachers=0,
                reads=reads,
                over=f"{name}_1" if number else "plain_2",
            )
    for form in ("cwtm", "dkpp"):
        yield Row(
            f"ban_{form}", f"{form.upper()}, generation 1", GENERATIONS, "1, T = 1 (paper)", (named("born_again", form=form),),
            {"name": "born_again", "generations": 1}, teachers=0, over="ban_1",
        )  # fmt: skip

    for size in (2, 3, 4, 5):
        yield cohort(f"dml_{size}", f"DML, {size} networks", [HALF] * (size - 1), "each")
    # with constant peers its gradient is that of DML, p_k - mean of p_l, so one row is enough; for two networks the losses are equal
    yield cohort("dml_3_average", "DML_e, 3 networks", [HALF] * 2, "average")
    yield cohort("dml_simultaneous", "DML, 2 networks, simultaneous", [HALF], "each", update="simultaneous")
    yield cohort("dml_lenet5", "DML with a LeNet-5", [FULL], "each", reads="student")


def cohort(name: str, title: str, peers: list[Spec], target: str, reads: str = "cohort", **rest: Any) -> Row:
    losses = (CE, named("mutual", target=target))
    schedule = {"name": "mutual", "peers": peers, **rest}
    return Row(name, title, COHORT, "1, T = 1 (paper)", losses, schedule, teachers=0, reads=reads, over="own_half")


def residual() -> Iterator[Row]:
    """For networks with BatchNorm and equal channels: the methods that refuse LeNets, those whose published weights or
    forms are made for such networks, and the rows that they are compared with."""
    wanted = ("hint", "nst_polynomial", "review")
    yield Row("plain", "plain training", "", "", (CE,), teachers=0)
    yield Row("kd", "KD", "", "CE 0.1, KD 0.9, T = 4 (RepDistiller)", KD)
    yield Row("fsp", "FSP, one stage", FEATURES, "1 (default)", (CE, named("fsp")))
    yield Row("overhaul", "OFD", FEATURES, "1 (authors' scale)", (CE, named("overhaul")))
    yield Row("at", "AT, sum of squares", FEATURES, "1,000 (authors' code)", (CE, named("attention_transfer", 1000.0)))
    yield from (row for row in objectives() if row.name in wanted)
    yield Row("simkd", "SimKD (ships more)", FEATURES, "1 alone, on maps (authors)", (named("similarity_head"),))
    lighter = (CE, named("attention_transfer", 100.0))
    yield Row("at_light", "AT, sum of squares, lighter", INVESTIGATED, "100", lighter)
    schedule = {"name": "two_stage", "first": [named("fsp")], "fraction": 0.125}
    yield Row("fsp_then_plain", "FSP, then labels", STAGES, "1/8 of the steps", (CE,), schedule)


def cifar10() -> Iterator[Row]:
    """For a GPU: plain training and eight methods."""
    wanted = ("plain", "kd", "kd_standardised", "dkd", "dist", "at_sum_power", "nst_polynomial")
    yield from (row for row in objectives() if row.name in wanted)
    yield Row("crd", "CRD", RELATIONS, "0.8 (authors)", (CE, named("crd", 0.8)))
    yield Row(
        "review",
        "ReviewKD",
        FEATURES,
        "0.6 (authors, resnet56 to resnet20), raised over 1/12",
        (CE, named("review", rising(0.6))),
    )


LISTS = {
    "mnist": lambda: [*objectives(), *procedures()],
    "residual": lambda: [*residual()],
    "cifar10": lambda: [*cifar10()],
}
NOT_COMPARED = {
    "privileged": "its teacher reads another image than the student; with the same image it is KD",
    "architecture_search": "its student is another network, chosen by its latency too",
}
"""Methods for classification without a row, and the reason."""
