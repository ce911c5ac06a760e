"""Adding a method means adding one file: in a copy of the checkout, one more objective appears everywhere."""

import json
from pathlib import Path

import pytest

from tests.worker.distillation.checkouts import copied, run

pytestmark = pytest.mark.slow
TESTS = Path("tests/worker/distillation")
CONTRACT = (TESTS / "objectives/test_contract.py", TESTS / "objectives/test_killed.py")

TOY = '''"""A toy."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from worker.distillation.objective import Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.step import Step


class Toy(Objective):
    """Mean squared distance of the logits, a toy."""

    paper = "arXiv:0000.00000"
    needs = ObjectiveNeeds(logits=True)

    @dataclass(frozen=True)
    class Parameters:
        """How much of it."""

        strength: Annotated[float, Range(gt=0, le=2), "Multiplies the distance."] = 1.0

    def forward(self, step: Step) -> dict[str, Tensor]:
        difference = step.student.logits - step.need_teacher().logits
        return {"toy": self.settings.strength * torch.REDUCTION(difference.square())}
'''


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy with the toy objective, one that breaks a rule, and a regenerated catalogue."""
    folder = copied(tmp_path_factory.mktemp("checkout"), *CONTRACT, TESTS / "trial.py", TESTS / "killed_runs.py")
    objectives = folder / "worker" / "distillation" / "objectives"
    (objectives / "toy.py").write_text(TOY.replace("REDUCTION", "mean"))
    (objectives / "toy_wrong.py").write_text(TOY.replace("REDUCTION", "sum"))
    run(folder, "-m", "worker.distillation.catalogue")
    return folder


def test_is_in_the_catalogue_and_on_its_page(checkout):
    entry = json.loads((checkout / "models" / "spec" / "catalogue.json").read_text())["objectives"]["toy"]
    assert entry["description"] == "Mean squared distance of the logits, a toy."
    assert entry["parameters"]["properties"]["strength"]["exclusiveMinimum"] == 0
    assert entry["needs"]["logits"]
    assert "### `toy`" in (checkout / "docs" / "methods.md").read_text()


def test_is_in_the_schema_of_the_api_which_checks_its_parameters(checkout):
    code = """
import json
from pydantic import ValidationError
from api.main import app
from models.spec.job_spec import JobSpec, problems_of
def problems(strength):
    try:
        JobSpec.model_validate({"student": {"network": "mlp"}, "objectives": [{"name": "toy", "strength": strength}]})
    except ValidationError as error:
        return [problem.pointer for problem in problems_of(error)]
print(json.dumps([app.openapi()["components"]["schemas"], problems(2.0), problems(2.1)]))
"""
    schemas, fitting, too_strong = json.loads(run(checkout, "-c", code))
    toys = [each for each in schemas.values() if each.get("properties", {}).get("name", {}).get("const") == "toy"]
    assert [toy["properties"]["strength"]["maximum"] for toy in toys] == [2]
    assert (fitting, too_strong) == (None, ["/objectives/0/strength"])


@pytest.mark.slow
def test_the_contract_tests_run_on_it_and_detect_a_sum_over_samples(checkout):
    tests = (
        "-m",
        "pytest",
        *map(str, CONTRACT),
        "-k",
        "toy",
        "-rfp",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
    )
    lines = run(checkout, *tests, fails=True).splitlines()
    passed, failed = ([line for line in lines if line.startswith(word)] for word in ("PASSED", "FAILED"))
    assert sum("[toy" in line or "-toy-" in line for line in passed) >= 10
    assert sum("test_killed_and_restored_bit_equal[toy-" in line for line in passed) == 1
    assert len(failed) == 1
    assert "test_is_a_mean_over_samples_unless_declared_otherwise[toy_wrong" in failed[0]
