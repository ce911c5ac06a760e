"""Datasets in the database."""

from typing import Any

from api.datasets.schemas import DatasetBody
from api.http.downloads import Blob
from api.http.errors import Invalid, NotFound
from api.uploads.service import Uploads
from models.database import reading
from models.records import Dataset
from models.settings import settings
from models.spec.job_spec import DatasetSpec
from models.storage import keys
from models.storage.dataset_sources import SourceRefused, allowed_source
from models.storage.opening import storage

DATASETS = Uploads(Dataset, DatasetBody, "dataset", "dts", "/datasets")


def samples(key_id: str, identifier: str) -> Blob:
    """The sheet of images that the inspection of a dataset made.

    Raises:
        NotFound: the dataset does not exist, or has no sheet: it is not ready, or was inspected by an earlier version.
    """
    with reading() as session:
        record = DATASETS.find(session, key_id, identifier)
    key = keys.samples(record.blob_key) if record.blob_key and "samples" in (record.findings or {}) else None
    size = storage().size(key) if key else None
    if key is None or size is None:
        raise NotFound(f"The dataset {identifier} has no sheet of images.")
    return Blob(f"{identifier}.png", key, "image/png", size, None, inline=True)


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
