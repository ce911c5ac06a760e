"""Inputs for whole services."""

from pathlib import Path

import pytest

from tests.integration.whole import write_inputs


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `teacher.safetensors` and `images.npz`."""
    return write_inputs(tmp_path_factory.mktemp("inputs"))
