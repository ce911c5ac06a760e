"""Teachers in the database."""

from typing import Any

from api.teachers.schemas import TeacherBody
from api.uploads.service import Uploads
from models.records import Teacher
from models.spec.job_spec import TeacherSpec

TEACHERS = Uploads(Teacher, TeacherBody, "teacher", "tch", "/teachers")


def values_of(spec: TeacherSpec) -> dict[str, Any]:
    """Column values of a new teacher."""
    classes = spec.classes or len(spec.class_names)
    return spec.model_dump(mode="json") | {"name": spec.name or spec.network, "classes": classes}
