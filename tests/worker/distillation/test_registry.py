"""Methods are found by file name, and only there."""

import pytest

from worker.distillation import registry
from worker.distillation.errors import SpecError


def test_every_file_holds_one_method_with_its_base():
    for kind, base in registry.BASES.items():
        for name in registry.names(kind):
            assert issubclass(registry.find(kind, name), base)
            assert len(registry._classes(kind, name)) == 1


@pytest.mark.parametrize("name", ["nothing", "__init__", "../kd", "kd.py", "", "KD"])
def test_unknown_names_are_refused_with_those_that_there_are(name):
    with pytest.raises(SpecError) as caught:
        registry.find("objectives", name, "/objectives/0")
    assert [problem.pointer for problem in caught.value.problems] == ["/objectives/0/name"]
    assert "kd" in str(caught.value)
