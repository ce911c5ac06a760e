"""Numbers in messages agree with their nouns and verbs; lists are cut short; names are sorted by their numbers."""

import pytest

from worker.distillation.wording import counted, listed, natural


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "1 class (a[s|b]{n}) has no box, and it was kept"),
        (2, "2 classes (a[s|b]{n}) have no box, and they were kept"),
    ],
)
def test_nouns_and_verbs_agree_and_names_stay_as_they_are(count, said):
    words = "{n} class[es] ({names}) [has|have] no box, and [it was|they were] kept"
    assert counted(count, words, names="a[s|b]{n}") == said


def test_long_lists_say_how_many_more_there_are():
    assert listed(["a", "b"]) == "a, b"
    assert listed(["a", "b", "c"], most=2) == "a, b and 1 more"


def test_numbers_in_names_count_by_their_value():
    assert sorted(["conv10.a", "conv2.b", "conv", "2", "10", "\u00b2"], key=natural) == [
        "2",
        "10",
        "conv",
        "conv2.b",
        "conv10.a",
        "\u00b2",
    ]
