"""Procedures as functions from a history to the next stage."""

import copy
from dataclasses import replace

import pytest

from tests.worker.distillation.procedures.plans import KD, STUDENT, plan_of, procedure_of, stages_of
from worker.distillation import registry
from worker.distillation.errors import SpecError
from worker.distillation.parameters import parse
from worker.distillation.procedure import GIVEN
from worker.distillation.trainer.objective_weight import weight_at

LENET = {"network": "lenet5", "options": {}}
BOTH = {"student": replace(STUDENT, objectives=({"name": "cross_entropy"}, *KD))}
PURE = [
    # procedure, parameters, plan
    ("direct", {}, {}),
    ("two_stage", {"preset": "fitnets"}, {}),
    ("mutual", {}, {}),
    ("mutual", {"peers": [LENET, LENET], "update": "simultaneous"}, {"teacher": None}),
    ("born_again", {}, {}),
    ("born_again", {"generations": 2}, {"teacher": None}),
    ("apprentice", {}, {}),
    ("apprentice", {"scheme": "a"}, {"teacher": None}),
    ("apprentice", {"scheme": "c"}, {}),
    ("assistant", {"assistants": [LENET, LENET]}, {}),
    ("early_stopped", {}, BOTH),
    ("early_stopped", {"teacher": LENET, "teacher_stop": 0.5}, BOTH | {"teacher": None}),
    ("route", {"teacher": LENET}, {"teacher": None}),
    ("route", {"choice": "greedy"}, {"teacher": None, "held_out": True}),
    ("architecture_search", {"trials": 3}, {"held_out": True}),
    ("source_trials", {}, {"epochs": None, "steps": 10, "synthesises": True}),
]


def test_every_procedure_is_among_them():
    assert {name for name, *_ in PURE} == set(registry.names("procedures"))


@pytest.mark.parametrize(("name", "values", "plan"), PURE)
def test_the_same_history_gives_the_same_stage(name, values, plan):
    procedure, plan = procedure_of(name, **values), plan_of(**plan)
    stages, history = stages_of(procedure, plan)
    kept = copy.deepcopy(vars(procedure))
    again = [
        procedure_of(name, **values).next(tuple(history[:count]), plan) for count in reversed(range(len(history) + 1))
    ]
    assert again == [None, *reversed(stages)]
    assert vars(procedure) == kept
    assert procedure.student_place(history, plan) == f"{stages[-1].name}/student"
    assert len({stage.name for stage in stages}) == len(stages)
    places = {f"{stage.name}/{member}" for stage in stages for member in stage.members}
    kept = procedure.kept_places(history, plan)
    assert {place.partition("@")[0] for place in kept.values()} <= places - {procedure.student_place(history, plan)}
    assert "student" not in kept


def test_direct_is_one_stage_of_the_whole_plan():
    (stage,), _ = stages_of(procedure_of("direct"), plan_of(epochs=None, steps=500))
    assert (stage.name, stage.members, stage.teacher) == ("distil", {"student": STUDENT}, GIVEN)
    assert (stage.epochs, stage.steps) == (None, 500)


def test_apprentices_differ_in_when_the_precision_is_lowered():
    (together,), _ = stages_of(procedure_of("apprentice", scheme="a"), plan_of(teacher=None))
    assert together.teacher is None and list(together.members) == ["teacher", "student"]
    assert together.members["teacher"].transforms == () and together.members["student"].transforms == STUDENT.transforms
    assert [each["name"] for each in together.members["teacher"].objectives] == ["cross_entropy"]
    (beside,), _ = stages_of(procedure_of("apprentice", scheme="b"), plan_of())
    assert beside.teacher == GIVEN and beside.members == {"student": STUDENT}
    procedure = procedure_of("apprentice", scheme="c", full_share=0.75, low_rate=0.5)
    (full, low), _ = stages_of(procedure, plan_of(epochs=8, learning_rate=0.2))
    assert (full.epochs, low.epochs) == (6, 2)
    assert full.members["student"].transforms == () and low.members["student"].transforms == STUDENT.transforms
    assert low.members["student"].initial == "stage:full_precision/student"
    assert low.training == {"learning_rate": 0.1, "warm_up_steps": 0}


@pytest.mark.parametrize(("values", "plan", "pointer"), [
    ({}, {"student": replace(STUDENT, transforms=())}, "/transforms"),
    ({"scheme": "b"}, {"teacher": None}, "/teacher"),
    ({"scheme": "a"}, {}, "/teacher"),
    ({"scheme": "c", "teacher": LENET}, {}, "/procedure/teacher"),
])  # fmt: skip
def test_what_an_apprentice_lacks_is_refused(values, plan, pointer):
    with pytest.raises(SpecError) as refused:
        procedure_of("apprentice", **values).check(plan_of(**plan))
    assert [problem.pointer for problem in refused.value.problems] == [pointer]


def test_two_stages_share_the_budget_and_pass_on_the_weights():
    own = [{"name": "hint", "weight": 2.0}]
    procedure = procedure_of("two_stage", first=own, guided="relu2", fraction=0.25)
    (first, second), _ = stages_of(procedure, plan_of(epochs=None, steps=100))
    assert (first.steps, second.steps) == (25, 75)
    assert first.members["student"].trains_through == "relu2"
    assert first.members["student"].objectives == tuple(own)
    assert first.members["student"].initial == GIVEN
    assert first.members["student"].transforms == ()
    assert second.members["student"].trains_through is None
    assert second.members["student"].objectives == KD
    assert second.members["student"].initial == "stage:first"
    assert second.members["student"].transforms == STUDENT.transforms


def test_second_objectives_of_its_own():
    procedure = procedure_of("two_stage", preset="fitnets", second=[{"name": "cross_entropy"}])
    (_, second), _ = stages_of(procedure, plan_of())
    assert second.members["student"].objectives == ({"name": "cross_entropy"},)


def test_fitnets_is_a_hint_and_then_a_falling_temperature_three():
    (first, second), _ = stages_of(procedure_of("two_stage", preset="fitnets", guided="relu1", hint="relu2"), plan_of())
    (hint,) = first.members["student"].objectives
    assert hint == {"name": "hint", "weight": 1.0, "form": "paper", "taps": [["relu1", "relu2"]]}
    cross_entropy, kd = second.members["student"].objectives
    assert (cross_entropy["name"], cross_entropy["weight"]) == ("cross_entropy", 1.0)
    assert kd["temperature"] == 3
    factors = [weight_at(kd["weight"], progress) * kd["temperature"] ** 2 for progress in (0, 0.25, 0.5, 1)]
    assert factors == pytest.approx([4, 3, 2, 0])  # lambda, without T²


@pytest.mark.parametrize("name", ["hint", "cross_entropy", "kd"])
def test_the_presets_objectives_can_be_built(name):
    (first, second), _ = stages_of(procedure_of("two_stage", preset="fitnets"), plan_of())
    specs = {each["name"]: each for stage in (first, second) for each in stage.members["student"].objectives}
    values = {key: value for key, value in specs[name].items() if key not in ("name", "weight")}
    assert parse(registry.find("objectives", name).Parameters, values)


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("epochs", [2, 3, 10])
def test_every_stage_gets_at_least_one(fraction, epochs):
    (first, second), _ = stages_of(
        procedure_of("two_stage", preset="fitnets", fraction=fraction), plan_of(epochs=epochs)
    )
    assert min(first.epochs, second.epochs) >= 1
    assert first.epochs + second.epochs == epochs


@pytest.mark.parametrize(
    ("values", "plan", "pointer"),
    [
        ({}, {}, "/procedure/first"),
        ({"preset": "fitnets", "guided": "relu1"}, {}, "/procedure/hint"),
        ({"preset": "fitnets", "hint": "relu1"}, {}, "/procedure/guided"),
        ({"preset": "fitnets"}, {"epochs": 1}, "/procedure/fraction"),
    ],
)
def test_invalid_parameters_are_refused_before_the_first_stage(values, plan, pointer):
    with pytest.raises(SpecError) as caught:
        procedure_of("two_stage", **values).next((), plan_of(**plan))
    assert [problem.pointer for problem in caught.value.problems] == [pointer]


def test_saputra_is_an_attentive_hint_and_then_imitation_by_the_rest():
    procedure = procedure_of("two_stage", preset="saputra", guided="relu4", hint="relu5")
    (first, second), _ = stages_of(procedure, plan_of(epochs=60, steps=None))
    assert (first.epochs, second.epochs) == (30, 30)
    before, after = first.members["student"], second.members["student"]
    assert before.objectives == ({"name": "attentive_hint", "weight": 1.0, "tap": ["relu4", "relu5"]},)
    assert after.objectives == ({"name": "attentive_imitation", "weight": 1.0},)
    assert (before.trains_through, before.trains_after) == ("relu4", None)
    assert (after.trains_through, after.trains_after) == (None, "relu4")


@pytest.mark.parametrize(("preset", "freeze", "frozen"), [("fitnets", True, "relu4"), ("saputra", False, None)])
def test_freezing_of_the_first_layers_can_be_set(preset, freeze, frozen):
    procedure = procedure_of("two_stage", preset=preset, guided="relu4", hint="relu5", freeze=freeze)
    (_, second), _ = stages_of(procedure, plan_of())
    assert second.members["student"].trains_after == frozen
