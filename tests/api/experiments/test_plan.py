"""The expansion of grids and variants, and the statistics of the table."""

import random

import pytest
from pydantic import ValidationError

from api.experiments import statistics
from api.experiments.plan import planned, specs_of
from api.experiments.schemas import ExperimentSpec
from api.http.errors import Invalid
from benchmarks.compare import results

BASE = {"teacher": "tch_1", "student": {"network": "lenet5_half"}, "training": {"epochs": 2}}
KD = [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9}]


def spec(**values: object) -> ExperimentSpec:
    return ExperimentSpec.model_validate({"name": "losses", "base": BASE} | values)


def test_a_grid_makes_every_combination_and_seeds_are_runs_of_one_variant() -> None:
    grid = {
        "objectives": {"KD": KD, "plain": [{"name": "cross_entropy", "weight": 1}]},
        "training.learning_rate": [0.1, 0.2],
        "training.seed": [0, 1],
    }
    jobs = planned(spec(grid=grid))
    assert len(jobs) == 8
    assert list(dict.fromkeys(job.variant for job in jobs)) == [
        "KD, learning_rate 0.1", "KD, learning_rate 0.2", "plain, learning_rate 0.1", "plain, learning_rate 0.2",
    ]  # fmt: skip
    assert jobs[3].body["training"] == {"epochs": 2, "learning_rate": 0.2, "seed": 1}
    assert jobs[3].body["name"] == "losses: KD, learning_rate 0.2, seed 1"
    assert BASE["training"] == {"epochs": 2}, "the base must not change"
    assert len(specs_of(jobs)) == 8


def test_variants_are_combined_with_the_grid() -> None:
    variants = [{"name": "short", "changes": {"training.epochs": 1}}, {"name": "KD", "changes": {"objectives": KD}}]
    jobs = planned(spec(variants=variants, grid={"training.seed": [4, 5, 6]}))
    assert [(job.variant, job.body["training"]["seed"]) for job in jobs] == [
        ("short", 4), ("short", 5), ("short", 6), ("KD", 4), ("KD", 5), ("KD", 6),
    ]  # fmt: skip
    assert jobs[0].body["training"]["epochs"] == 1 and jobs[3].body["objectives"] == KD


def test_a_problem_is_reported_once_where_its_value_stands_in_the_request() -> None:
    wrong = [{"name": "kd", "weight": 1, "temperature": -1}]
    grid = {"objectives": {"KD": KD, "cold": wrong}, "training.epochs": [1, 0], "training.seed": [0, 1]}
    with pytest.raises(Invalid) as found:
        specs_of(planned(spec(grid=grid, base=BASE | {"exports": ["paper"]})))
    assert sorted(pointer for pointer, _ in found.value.errors) == [
        "/base/exports/0", "/grid/objectives/cold/0/temperature", "/grid/training.epochs/1",
    ]  # fmt: skip


def test_a_value_within_a_list_is_changed_in_place() -> None:
    jobs = planned(spec(base=BASE | {"objectives": KD}, grid={"objectives.1.weight": [0.5, 0.7]}))
    assert [job.body["objectives"][1]["weight"] for job in jobs] == [0.5, 0.7]
    assert jobs[1].place_of("/objectives/1/weight") == "/grid/objectives.1.weight/1"
    assert jobs[1].place_of("/objectives/0/weight") == "/base/objectives/0/weight"


@pytest.mark.parametrize(
    ("values", "pointer", "words"),
    [
        ({"grid": {"objectives.3.weight": [1]}, "base": BASE | {"objectives": KD}}, "/grid/objectives.3.weight/0", "2 entries"),
        ({"grid": {"teacher.name": [1]}}, "/grid/teacher.name/0", "has no fields"),
        ({"grid": {"training.seed": list(range(201))}}, "/grid", "at most 200"),
        ({"variants": [{"name": "a"}, {"name": "a"}]}, "/variants", "name them"),
        ({"grid": {"training.seed": [1, 1]}}, "/grid", "the same seed"),
    ],
)  # fmt: skip
def test_wrong_grids_are_refused(values: dict[str, object], pointer: str, words: str) -> None:
    with pytest.raises(Invalid) as found:
        planned(spec(**values))
    [(place, message)] = found.value.errors
    assert place == pointer and words in message


def test_an_experiment_without_variants_is_refused() -> None:
    with pytest.raises(ValidationError, match="is required, or `variants`"):
        spec()
    with pytest.raises(ValidationError, match="must have a value"):
        spec(grid={"training.seed": []})


def test_differences_are_those_of_the_comparison_page() -> None:
    draw = random.Random(3)
    for count in (1, 2, 3, 5, 9):
        ours, theirs = ({seed: draw.random() for seed in range(count)} for _ in range(2))
        expected = results.paired(ours, theirs)
        found = statistics.paired({str(seed): value for seed, value in ours.items()}, {str(seed): value for seed, value in theirs.items()})  # fmt: skip
        assert expected is not None and found is not None
        assert found.mean == pytest.approx(expected.mean) and found.n == count
        assert found.half == (None if expected.half is None else pytest.approx(expected.half, rel=1e-3))
    assert statistics.paired({"0": 1.0}, {"1": 1.0}) is None
    assert statistics.mean([]) is None and statistics.spread([1.0]) is None


@pytest.mark.parametrize("degrees", [1, 2, 7, 30, 31, 40, 99, 199])
def test_the_quantiles_of_students_t_are_those_of_scipy(degrees: int) -> None:
    from scipy.stats import t

    assert statistics.t_quantile(degrees) == pytest.approx(t.ppf(0.975, degrees), abs=2e-4)
