"""Storage keys: each names its owner, and only one file makes them."""

import re
from pathlib import Path

import pytest

from models.storage import keys

ROOT = Path(__file__).parents[3]
OF_A_JOB = [
    keys.checkpoint_part("job_1", "a" * 64),
    keys.artifact("job_1", 2, "student.onnx"),
    keys.engine_log("job_1", 2),
    keys.preview("job_1", 2, 500, "samples.png"),
]
OF_AN_UPLOAD = [keys.upload("tch_1", "f00"), keys.canonical("tch_1", "ins_1", 3)]


@pytest.mark.parametrize(
    ("key", "owner"),
    [(key, "job_1") for key in OF_A_JOB]
    + [(key, "tch_1") for key in OF_AN_UPLOAD]
    + [("blobs/tch_1.safetensors", "tch_1")]  # the form of earlier versions
    + [(key, None) for key in ("jobs/readme", "uploads", "other/job_1/2/x", "")],
)
def test_a_key_names_its_owner(key: str, owner: str | None) -> None:
    assert keys.owner(key) == owner


def test_keys_differ_and_have_a_known_prefix() -> None:
    assert len({*OF_A_JOB, *OF_AN_UPLOAD}) == 6
    assert {key.partition("/")[0] for key in (*OF_A_JOB, *OF_AN_UPLOAD)} == set(keys.PREFIXES)
    assert all(key.startswith(f"{keys.job('job_1')}/") for key in OF_A_JOB)
    assert OF_A_JOB[0].startswith(f"{keys.checkpoint_parts('job_1')}/")


def test_keys_are_made_in_one_file() -> None:
    makes_a_key = re.compile(rf'f"({"|".join(keys.PREFIXES)})/')
    paths = [path for folder in ("api", "models", "worker") for path in (ROOT / folder).rglob("*.py")]
    assert {path.name for path in paths if makes_a_key.search(path.read_text())} == {"keys.py"}
