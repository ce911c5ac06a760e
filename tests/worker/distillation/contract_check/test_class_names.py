"""Classes are matched by name where both sides have the same names."""

import random

import pytest

from models.spec import class_names as at_submission
from worker.distillation.contract_check import class_names as in_engine
from worker.distillation.contract_check.class_names import none_shared, other_order, partly_shared


@pytest.mark.parametrize(
    ("dataset", "teacher", "order"),
    [
        (["a", "b", "c"], ["a", "B", "c"], None),
        (["b", "c", "a"], ["a", "b", "c"], (1, 2, 0)),
        (["B ", "a"], ["A", "b"], (1, 0)),
        (["0", "1", "10", "2"], ["0", "1", "2", "10"], (0, 1, 3, 2)),
        (["a", "b"], ["a", "c"], None),
        (["a", "a"], ["a", "a"], None),
        (["a", "b"], [], None),
        ([], ["a", "b"], None),
    ],
)
def test_the_order(dataset, teacher, order):
    assert other_order(dataset, teacher) == order


@pytest.mark.parametrize(
    ("dataset", "teacher", "words"),
    [
        (["cat", "dog"], ["dog", "fox"], "only the dataset has `cat`, and only the teacher `fox`"),
        (["cat", "dog"], ["dog", "cat"], None),
        (["cat", "dog"], ["emu", "fox"], None),
        (["0", "1"], ["1", "2"], None),
        (["0", "cat"], ["cat", "1"], "only the dataset has `0`, and only the teacher `1`"),
        ([], ["cat"], None),
    ],
)
def test_names_that_are_shared_in_part(dataset, teacher, words):
    assert partly_shared(dataset, teacher) == words


@pytest.mark.parametrize(
    ("dataset", "teacher", "none"),
    [
        (["cat", "dog"], ["emu", "fox"], True),
        (["Cat ", "dog"], ["cat", "fox"], False),
        (["0", "1"], ["emu", "fox"], False),
        (["cat", "dog"], ["0", "1"], False),
        (["0", "cat"], ["1", "dog"], True),
        ([], ["cat"], False),
        (["cat"], [], False),
    ],
)
def test_names_that_are_not_shared(dataset, teacher, none):
    assert none_shared(dataset, teacher) == none


def test_the_api_and_the_engine_have_one_rule():
    draw = random.Random(0)
    for _ in range(2000):
        sides = [draw.choices(["0", "1", "cat", "Cat ", "dog", " DOG", "emu"], k=draw.randrange(4)) for _ in range(2)]
        assert at_submission.partly_shared(*sides) == in_engine.partly_shared(*sides)
        assert at_submission.none_shared(*sides) == in_engine.none_shared(*sides)
