"""Datasets in the database."""

from typing import Any

from api.datasets.schemas import DatasetBody
from api.http.errors import Invalid
from api.uploads.service import Uploads
from models.records import Dataset
from models.settings import settings
from models.spec.job_spec import DatasetSpec
from models.storage.dataset_sources import SourceRefused, allowed_source

DATASETS = Uploads(Dataset, DatasetBody, "dataset", "dts", "/datasets")


def values_of(spec: DatasetSpec) -> dict[str, Any]:
    """Column values of a new dataset.

    Raises:
        Invalid: its source is malformed, or the operator does not allow it.
    """
    if spec.source is not None:
        try:
            allowed_source(spec.source, settings())
        except SourceRefused as refused:
            raise Invalid([("/source", str(refused))]) from refused
    return spec.model_dump(mode="json") | {"name": spec.name or "dataset"}
