"""Rules of the structure that the linter does not know. Who may import whom is in pyproject.toml, for `make lint`."""

import ast
import tomllib
from pathlib import Path

from tests.conftest import slow_cases
from tests.structure import PACKAGES, circles, files_by_folder, imports, modules, packages_at_once, running_back

ROOT = Path(__file__).parents[1]
MOST_FILES = 25


def test_no_folder_holds_more_files_than_one_can_look_through():
    crowded = {folder: count for folder, count in files_by_folder(ROOT).items() if count > MOST_FILES}
    assert not crowded, "make rooms: folders within these"


def test_every_package_says_what_belongs_in_it():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            opening = path.parent / "__init__.py"
            assert opening.exists() or path.parent.name == "benchmarks", f"{path.parent} has no __init__.py"
            if opening.exists():
                assert ast.get_docstring(ast.parse(opening.read_text(encoding="utf-8"))), f"{opening} says nothing"


def test_the_rule_for_the_worker_outside_the_engine_names_all_of_it():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (named,) = (each["source_modules"] for each in contracts if each["name"].startswith("the worker outside"))
    rooms = {name for name in modules(ROOT, ["worker"]) if name.count(".") == 1}
    assert set(named) == rooms - {"worker.distillation"}


def test_circles_and_arrows_back_are_found(tmp_path):
    package = tmp_path / "house"
    package.mkdir()
    for name, text in (
        ("a", "import house.b"),
        ("b", "from house import c"),
        ("c", "def f():\n  from house.a import x"),
    ):
        (package / f"{name}.py").write_text(text)
    imported = imports(modules(tmp_path, ["house"]))
    graph = {
        name.removeprefix("house."): {other.removeprefix("house.") for other in imported[name]} for name in imported
    }
    assert circles(graph) == [{"a", "b", "c"}]
    assert running_back(graph) == 1
    assert circles({"a": {"b"}, "b": set()}) == []


def test_the_engine_is_imported_with_torch_torchvision_timm_and_safetensors_alone():
    allowed = {"numpy", "safetensors", "timm", "torch", "torchvision", "worker"}  # numpy comes with torchvision
    found = {name: packages_at_once(path) for name, path in modules(ROOT, ["worker/distillation"]).items()}
    more = {name: packages - allowed for name, packages in found.items() if packages - allowed}
    assert len(found) > 400 and not more, "import others in the functions that use them"


def test_imports_in_functions_and_for_types_wait(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        "import json, torch.nn\nfrom . import b\nif TYPE_CHECKING:\n    import onnx\n"
        "try:\n    import scipy\nexcept ImportError:\n    pass\ndef f():\n    import pandas\n"
        "class A:\n    from numpy import array\n"
    )
    assert packages_at_once(path) == {"torch", "scipy", "numpy"}


def test_listed_slow_cases_exist():
    for case in slow_cases():
        path, _, name = case.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text(encoding="utf-8"), case
