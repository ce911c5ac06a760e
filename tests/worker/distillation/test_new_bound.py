"""A bound is defined in one place: if it changes in a copy of the checkout, the engine, the API and the docs all use it."""

import json

import pytest

from tests.worker.distillation.checkouts import copied, run

pytestmark = pytest.mark.slow
DECLARED = "batch_size: Annotated[int, Range(ge=1, le=65_536)"
LARGEST = 500


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy in which batches have at most 500 images, with a regenerated catalogue."""
    folder = copied(tmp_path_factory.mktemp("checkout"))
    declaration = folder / "worker" / "distillation" / "training.py"
    code = declaration.read_text()
    assert code.count(DECLARED) == 1
    declaration.write_text(code.replace(DECLARED, DECLARED.replace("65_536", str(LARGEST))))
    run(folder, "-m", "worker.distillation.catalogue")
    return folder


def test_the_engine_refuses_larger_values(checkout):
    code = """
import json
from worker.distillation.errors import SpecError
from worker.distillation.training import Training
def problems(batch_size):
    try:
        return Training.from_spec({"batch_size": batch_size}).batch_size
    except SpecError as error:
        return [(problem.pointer, problem.message) for problem in error.problems]
print(json.dumps([problems(500), problems(501)]))
"""
    fitting, too_many = json.loads(run(checkout, "-c", code))
    assert fitting == LARGEST
    assert too_many == [["/training/batch_size", "must be at most 500, not 501"]]


def test_the_api_refuses_larger_values_and_has_the_bound_in_its_schema(checkout):
    code = """
import json
from pydantic import ValidationError
from api.main import app
from models.spec.job_spec import JobSpec, problems_of
def problems(batch_size):
    try:
        JobSpec.model_validate({"student": {"network": "mlp"}, "training": {"batch_size": batch_size}})
    except ValidationError as error:
        return [problem.pointer for problem in problems_of(error)]
print(json.dumps([app.openapi()["components"]["schemas"], problems(500), problems(501)]))
"""
    schemas, fitting, too_many = json.loads(run(checkout, "-c", code))
    for name in ("TrainingSpec", "TeacherTraining"):
        assert schemas[name]["properties"]["batch_size"]["maximum"] == LARGEST
    assert (fitting, too_many) == (None, ["/training/batch_size"])


def test_the_page_shows_the_bound(checkout):
    page = (checkout / "docs" / "methods.md").read_text()
    training = page.split("### `training`")[1].split("###")[0]
    assert "| `batch_size` | integer ≥ 1 ≤ 500 | `128` | Number of images per step. |" in training
