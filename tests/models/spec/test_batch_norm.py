"""Sources that match BatchNorm statistics, and teachers without BatchNorm."""

import pytest

from models.spec.catalogue import known
from models.spec.facts import Facts, TeacherFacts
from models.spec.job_spec import JobSpec, check, resolve
from tests.models.spec.specs import CONTRACT

READERS = sorted(name for name, entry in known("sources").items() if entry["needs"]["batch_norm"])


def problems(source, batch_norm):
    findings = {"differentiable": True, "batch_norm": batch_norm}
    facts = Facts(TeacherFacts("lenet5", 10, CONTRACT, findings=findings))
    spec = {"teacher": "tch_" + "0" * 32, "student": {"network": "lenet5_half"}, "source": source}
    return check(resolve(JobSpec.model_validate(spec), facts), facts)


def test_which_sources_match_batch_norm_statistics():
    assert READERS == ["cmi", "cpnet", "deep_inversion", "dfq", "fast_meta", "nayer"]


@pytest.mark.parametrize("name", READERS)
def test_a_teacher_without_batch_norm_is_refused_with_alternatives(name):
    (problem,) = problems({"name": name}, batch_norm=False)
    assert problem.pointer == "/teacher"
    assert f"{name!r} matches BatchNorm statistics" in problem.message
    assert "`dfad`" in problem.message
    assert not problems({"name": name}, batch_norm=True)
    if name != "cpnet":  # always matches the teacher's maps
        assert not problems({"name": name, "statistics_weight": 0}, batch_norm=False)
