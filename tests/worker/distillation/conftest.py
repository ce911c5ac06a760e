"""Inputs and small methods for the engine's tests."""

import importlib
from pathlib import Path

import pytest
import torch

from tests.worker.distillation.killed_runs import write_inputs

PARTS = Path(__file__).parent / "parts"


@pytest.fixture
def toy_parts(monkeypatch):
    """Make the registry find the methods in `parts/`."""
    for folder in PARTS.iterdir():
        package = importlib.import_module(f"worker.distillation.{folder.name}")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])


@pytest.fixture(scope="session")
def engine_inputs(tmp_path_factory):
    """A folder with a dataset and a teacher, for tests to copy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("engine")
    write_inputs(folder)
    torch.set_num_threads(threads)
    return folder
