"""Copies of the checkout, in which a test may change the code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
NEEDED = ("worker/__init__.py", "worker/distillation", "models", "api", "pyproject.toml")


def copied(folder: Path, *further: Path) -> Path:
    """Copy the engine, the API and `further` files of the checkout into `folder`, and create an empty `docs`; return it."""
    for name in (*NEEDED, *further):
        source = ROOT / name
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    (folder / "docs").mkdir()
    return folder


def run(folder: Path, *arguments: str, fails: bool = False) -> str:
    """Run Python in `folder` and return its output; `fails` is whether it must exit with an error."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout
