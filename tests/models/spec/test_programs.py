import pytest
from pydantic import ValidationError

from models.spec.facts import Facts
from models.spec.job_spec import JobSpec, problems_of, resolve
from models.spec.named_files import named_files

FILE = "fil_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"


def spec_of(**student):
    return {"dataset": "dts_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b", "student": student}


def test_a_student_that_is_a_program_names_its_file():
    resolved = resolve(JobSpec.model_validate(spec_of(network="program", program=FILE)), Facts())
    assert resolved["student"]["program"] == FILE
    assert [(one.pointer, one.id, one.kind) for one in named_files(resolved)] == [("/student/program", FILE, "program")]
    assert resolve(JobSpec.model_validate(resolved), Facts()) == resolved


@pytest.mark.parametrize("student", [{"network": "program"}, {"network": "lenet5", "program": FILE}])
def test_a_program_without_a_file_and_a_file_without_a_program_are_refused(student):
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(spec_of(**student))
    assert [problem.pointer for problem in problems_of(caught.value)] == ["/student/program"]


def test_a_student_with_a_name_has_no_file():
    resolved = resolve(JobSpec.model_validate(spec_of(network="lenet5")), Facts())
    assert "program" not in resolved["student"] and named_files(resolved) == []
