"""Classes are matched by name where both sides have the same names."""

import pytest

from models.spec.class_names import partly_shared as at_submission
from worker.distillation.contract_check.class_names import other_order, partly_shared


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
    assert at_submission(dataset, teacher) == words
