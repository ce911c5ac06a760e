"""Numbers in messages agree with their nouns and verbs."""

import pytest

from worker.distillation.wording import counted


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
