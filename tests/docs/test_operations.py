"""What docs/operations.md tells an operator to type exists: modules, targets of make, settings, files."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from models.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([\w.]+)", PAGE))))
def test_a_module_can_be_run(module: str) -> None:
    found = find_spec(module) or find_spec(f"{module}.__main__")
    assert found is not None
    if found.submodule_search_locations:
        assert find_spec(f"{module}.__main__") is not None


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:`|    )make ([\w-]+)", PAGE))))
def test_make_has_the_target(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_setting_exists() -> None:
    named = set(re.findall(r"\bDISTILL_([A-Z_]+)\b", PAGE))
    assert named and {name.lower() for name in named} <= set(Settings.model_fields)


def test_every_file_exists() -> None:
    named = set(re.findall(r"(docs/deploy/\w+\.py|docker-compose[\w.]*\.yml)", PAGE))
    assert named and all((ROOT / name).is_file() for name in named)
