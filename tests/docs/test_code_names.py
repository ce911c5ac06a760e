"""Every file, module, folder and function that the documentation names exists."""

import ast
import re
from pathlib import Path

import pytest

from tests.docs.test_docs import PAGES, ROOT

ARCHITECTURE = ROOT / "docs" / "architecture.md"
CODE_PAGES = [page for page in PAGES if page.name != "CHANGELOG.md"]
"""A changelog may name files that have moved since."""
PATH = re.compile(r"(?<![\w/.])(?:api|benchmarks|client|docs|migrations|models|tests|worker)/[\w./-]*\w")
FILE = re.compile(r"(?<![\w/.*-])[\w-]+\.py\b")
MODULE = re.compile(r"python -m ([\w.]+\w)")
UNWANTED = {"utils.py", "common.py", "helpers.py", "misc.py"}
"""Named by CONTRIBUTING.md as names that no file has."""
WRITTEN_BY_JOBS = {"student.py"}
"""Artifacts, which are in no folder of the code."""
PLACEHOLDER = re.compile(r"[A-Z_]+(\.py)?")
"""A part of a path that stands for any name, as in `objectives/FOLDER/NAME.py`."""
FUNCTION_ROW = re.compile(r"^\|(?:[^|]+\|)? `([\w/.]+\.py)` \| ((?:`[\w.]+`(?:, )?)+) \|", re.MULTILINE)
FOLDER_ROW = re.compile(r"^\| `([a-z0-9_/]+)` \|", re.MULTILINE)


def missing_paths(text: str) -> list[str]:
    """Paths from the root in `text` that do not exist; a placeholder ends the part that is checked."""
    found = []
    for path in PATH.findall(text):
        parts = path.split("/")
        known = next((count for count, part in enumerate(parts) if PLACEHOLDER.fullmatch(part)), len(parts))
        if not ROOT.joinpath(*parts[:known]).exists():
            found.append(path)
    return found


def missing_files(text: str) -> list[str]:
    """Names of Python files without a folder in `text` that no folder of the code holds."""
    packages = ("api", "benchmarks", "client", "docs", "models", "tests", "worker")
    known = {path.name for package in packages for path in (ROOT / package).rglob("*.py")}
    known |= UNWANTED | WRITTEN_BY_JOBS
    return [name for name in FILE.findall(text) if name not in known and not PLACEHOLDER.fullmatch(name)]


def missing_modules(text: str) -> list[str]:
    """Modules of this repository in the commands `python -m MODULE` of `text` that do not exist."""
    ours = {path.name for path in ROOT.iterdir() if path.is_dir()}
    named = [name for name in MODULE.findall(text) if name.split(".")[0] in ours]
    places = {name: ROOT.joinpath(*name.split(".")) for name in named}
    return [name for name, place in places.items() if not (place.with_suffix(".py").exists() or place.is_dir())]


def defined_in(path: Path) -> set[str]:
    """Names of a file's functions and classes, and `Class.method` for methods."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            names |= {f"{node.name}.{method.name}" for method in methods}
    return names


@pytest.mark.parametrize("page", CODE_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_modules_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert missing_paths(text) == []
    assert missing_files(text) == []
    assert missing_modules(text) == []


def test_pages_that_the_code_names_exist() -> None:
    sources = [path for package in ("api", "benchmarks", "models", "worker") for path in (ROOT / package).rglob("*.py")]
    named = {page for path in sources for page in re.findall(r"\bdocs/[\w./-]+\.md", path.read_text(encoding="utf-8"))}
    assert len(named) > 5
    assert [page for page in named if not (ROOT / page).exists()] == []


def test_functions_that_the_architecture_names_exist() -> None:
    rows = FUNCTION_ROW.findall(ARCHITECTURE.read_text(encoding="utf-8"))
    named = {(path, name) for path, cell in rows for name in re.findall(r"`([\w.]+)`", cell)}
    assert len(named) > 50
    assert sorted((path, name) for path, name in named if name not in defined_in(ROOT / path)) == []


def test_every_table_row_that_names_a_file_and_functions_is_checked() -> None:
    lines = ARCHITECTURE.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if ".py` | `" in line]
    assert [line for line in rows if not FUNCTION_ROW.match(line)] == []


def test_the_map_of_folders_is_complete() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    section = text[text.index("\n## All folders\n") :]
    listed = FOLDER_ROW.findall(section[: section.index("\n## ", 1)])
    packages = ("api", "models", "worker")
    folders = {str(path.parent.relative_to(ROOT)) for each in packages for path in (ROOT / each).rglob("__init__.py")}
    assert sorted(listed) == sorted(folders)


def test_what_is_missing_is_found() -> None:
    text = (
        "`worker/tasks.py`, `worker/gone.py`, `worker/FOLDER/NAME.py`, `gone_file.py`, `tasks.py`, `python -m api.gone`"
    )
    assert missing_paths(text) == ["worker/gone.py"]
    assert missing_files(text) == ["gone_file.py"]
    assert missing_modules(text) == ["api.gone"]
