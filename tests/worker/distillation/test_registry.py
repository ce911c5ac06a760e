"""Methods are found by file name."""

import importlib
from pathlib import Path

import pytest

from worker.distillation import registry
from worker.distillation.errors import SpecError


def test_every_file_contains_one_method_with_its_base_class():
    for kind, base in registry.BASES.items():
        for name in registry.names(kind):
            assert issubclass(registry.find(kind, name), base)
            assert len(registry._classes(registry.places(kind)[name])) == 1


def test_file_names_are_unique_within_a_kind():
    for kind in registry.BASES:
        package = importlib.import_module(f"worker.distillation.{kind}")
        files = [path for path in Path(package.__path__[0]).rglob("*.py") if path.stem != "__init__"]
        assert len(files) == len(registry.places(kind))


@pytest.mark.parametrize("name", ["nothing", "__init__", "../kd", "kd.py", "", "KD"])
def test_unknown_names_are_refused_with_a_list_of_known_ones(name):
    with pytest.raises(SpecError) as caught:
        registry.find("objectives", name, "/objectives/0")
    assert [problem.pointer for problem in caught.value.problems] == ["/objectives/0/name"]
    assert "kd" in str(caught.value)
