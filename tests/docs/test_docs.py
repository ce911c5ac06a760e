"""The documentation agrees with the code: links, make targets, settings, error codes, dependencies."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from docs import errors_page, settings_table

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("client/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
TARGET = re.compile(r"(?:`|^    )make ([a-z-]+)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_point_to_files(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_exist(page: Path) -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(TARGET.findall(page.read_text(encoding="utf-8"))) - known == set()


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = set(LINK.findall((folder / "README.md").read_text(encoding="utf-8")))
    assert listed == {page.name for page in folder.glob("*.md")} - {"README.md"}


def test_settings_are_documented() -> None:
    page = settings_table.PAGE.read_text(encoding="utf-8")
    assert page == settings_table.renewed(page), "run python -m docs.settings_table"
    assert not re.findall(r"\|  \|$", settings_table.table(), re.MULTILINE), "a setting has no description"


def test_every_error_code_is_documented() -> None:
    assert errors_page.PAGE.read_text(encoding="utf-8") == errors_page.page(), "run python -m docs.errors_page"


def test_settings_that_pages_name_exist() -> None:
    known = set(re.findall(r"`(DISTILL_\w+)`", settings_table.table())) | {"DISTILL_URL", "DISTILL_KEY"}
    for page in PAGES:
        named = set(re.findall(r"DISTILL_[A-Z0-9_]*[A-Z0-9]", page.read_text(encoding="utf-8")))
        assert named <= known, page


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE).group(1).split())
    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make ([a-z-]+)", printed, re.MULTILINE)) == targets


def test_the_extra_client_repeats_the_clients_dependencies() -> None:
    service = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    client = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(service["optional-dependencies"]["client"]) == sorted(client["dependencies"])


def test_constraints_are_names_and_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert [line for line in pinned if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line)] == []
    cuda = [line for line in pinned if line.lower().startswith(("nvidia", "cuda", "triton"))]
    assert [line for line in cuda if not line.startswith("nvidia-ml-py==")] == []  # which fits every build of torch
