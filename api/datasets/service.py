"""Datasets in the database."""

from typing import Any

from api.datasets.schemas import DatasetBody
from api.uploads.service import Uploads
from models.records import Dataset
from models.spec.job_spec import DatasetSpec

DATASETS = Uploads(Dataset, DatasetBody, "dataset", "dts", "/datasets")


def values_of(spec: DatasetSpec) -> dict[str, Any]:
    """Column values of a new dataset."""
    return spec.model_dump(mode="json") | {"name": spec.name or "dataset"}
