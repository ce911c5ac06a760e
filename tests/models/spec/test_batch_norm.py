"""Sources that match BatchNorm's statistics, and teachers that keep none."""

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


def test_who_reads_them():
    assert READERS == ["cmi", "deep_inversion", "dfq", "fast_meta", "nayer"]


@pytest.mark.parametrize("name", READERS)
def test_teacher_without_them_is_refused_with_a_way_out(name):
    (problem,) = problems({"name": name}, batch_norm=False)
    assert problem.pointer == "/teacher"
    assert f"{name!r} matches the statistics" in problem.message
    assert "`dfad`" in problem.message
    assert not problems({"name": name}, batch_norm=True)
    assert not problems({"name": name, "statistics_weight": 0}, batch_norm=False)
