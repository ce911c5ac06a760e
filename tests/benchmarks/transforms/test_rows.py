"""The rows of the benchmark of transforms are jobs that the service accepts, and its table says what the rows say."""

import pytest

from benchmarks.transforms.__main__ import CE, ROWS, TAUGHT, _exports, _spec, table
from models.spec.facts import Facts, TeacherFacts
from models.spec.job_spec import check


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_a_job_that_the_service_accepts(name: str) -> None:
    asked = {"objectives": TAUGHT, "exports": _exports(ROWS[name].get("transforms") or ())} | ROWS[name]
    alone = asked["objectives"] in (None, [CE])
    spec = _spec(name, asked, 1, alone)
    contract = {"channels": 1, "height": 32, "width": 32, "mean": [0.1307], "std": [0.3081]}
    facts = Facts(None if alone else TeacherFacts("lenet5", 10, contract), None, None)
    assert check(spec, facts) == []
    assert spec["training"]["seed"] == 1
    assert spec["student"]["network"] == ("lenet5_half" if name.startswith("half") else "lenet5")


def test_the_table_has_the_extremes_and_the_smallest_file() -> None:
    def row(accuracy: float, size: int) -> dict:
        files = {"student.safetensors": 1000, "student.huffman": size, "student.py": 5}
        return {
            "row": "half/kd/4 bits",
            "accuracy": accuracy,
            "bytes": files,
            "times_smaller": {"student.huffman": 1000 / size},
        }

    rows = [
        row(0.97, 100),
        row(0.98, 120),
        {"row": "half/ce/float32", "accuracy": 0.5, "bytes": {"student.safetensors": 9}},
    ]
    lines = table(rows).splitlines()
    assert lines[2] == "| half/ce/float32 | 50.00 (50.00 to 50.00) | 1 | `student.safetensors` 9 | 1.0 |"
    assert lines[3] == "| half/kd/4 bits | 97.50 (97.00 to 98.00) | 2 | `student.huffman` 120 | 8.3 |"
