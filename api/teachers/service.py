"""Teachers in the database."""

from typing import Any

from api.datasets.service import DATASETS
from api.http.errors import Invalid, NotFound
from api.teachers.schemas import TeacherBody
from api.uploads.service import Uploads, why_unusable
from models.database import reading
from models.records import Teacher
from models.spec.job_spec import TeacherSpec

TEACHERS = Uploads(Teacher, TeacherBody, "teacher", "tch", "/teachers")


def values_of(key_id: str, spec: TeacherSpec) -> dict[str, Any]:
    """Column values of a new teacher.

    Raises:
        Invalid: its dataset does not exist, belongs to another key or was rejected.
    """
    _check_dataset(key_id, spec.dataset)
    values = spec.model_dump(mode="json")
    classes = spec.classes or len(spec.class_names)
    return values | {"name": spec.name or spec.network, "classes": classes, "input": values["input"] or {}}


def _check_dataset(key_id: str, identifier: str | None) -> None:
    if identifier is None:
        return
    try:
        with reading() as session:
            reason = why_unusable(DATASETS.find(session, key_id, identifier))
    except NotFound:
        reason = f"the dataset {identifier} does not exist"
    if reason:
        raise Invalid([("/dataset", reason)])
