"""Jobs read their dataset from the cache."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.records import Dataset, Job
from models.storage.blobs import Storage
from models.storage.opening import storage
from tests.worker.scenes import change, claimed, make_job, make_upload
from worker.attempt.attempt_storage import AttemptStorage
from worker.attempt.fetching import InputMissing
from worker.attempt.inputs import lay_out
from worker.attempt.lease import Lease
from worker.cache.dataset_cache import HeldDatasets, cache_folder
from worker.engine.folder import Folder
from worker.ledger.attempts import AttemptLedger


def job_on_a_dataset(content: bytes = b"images") -> str:
    dataset = make_upload(b"sent", status="ready")
    blob = storage().put(f"blobs/{dataset}/1.safetensors", content)
    change(Dataset, dataset, blob_key=f"blobs/{dataset}/1.safetensors", blob_size=blob.size, blob_sha256=blob.sha256)
    make_job(dataset_id=dataset, evaluation_id=dataset)
    return dataset


def laid_out() -> tuple[dict[str, Any], list[str]]:
    """A job file, and the files in the attempt's folder of inputs."""
    claim = claimed()
    assert isinstance(claim.record, Job)
    with Lease(claim) as lease, Folder(claim.id, claim.attempt) as folder, HeldDatasets() as held:
        ledger = AttemptLedger(claim.id, claim.attempt)
        lay_out(claim.record, folder.path, ledger, AttemptStorage(lease.check_held), lease, held)
        content = json.loads((folder.path / "job.json").read_text())
        assert (folder.path / content["dataset"]).read_bytes() == b"images"
        return content, [path.name for path in (folder.path / "inputs").iterdir()]


def test_two_jobs_read_one_copy(embedded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    download = Storage.download
    monkeypatch.setattr(Storage, "download", lambda self, key, *more: read.append(key) or download(self, key, *more))
    for _ in range(2):
        job_on_a_dataset()
        content, copied = laid_out()
        assert copied == [] and content["evaluation"] == content["dataset"]
        assert content["reads"] == [str(Path(content["dataset"]).parent)]
        assert Path(content["dataset"]).is_relative_to(cache_folder())
    assert len(read) == 1


def test_without_room_the_dataset_is_copied(embedded: None, configure: Callable[..., Any]) -> None:
    configure(cache_bytes=1)
    job_on_a_dataset()
    content, copied = laid_out()
    assert content["reads"] == [] and content["dataset"] == "inputs/dataset.safetensors"
    assert copied == ["dataset.safetensors"]


def test_a_dataset_that_is_gone_is_named(embedded: None) -> None:
    dataset = job_on_a_dataset()
    storage().delete(f"blobs/{dataset}/1.safetensors")
    with pytest.raises(InputMissing, match=dataset) as missing:
        laid_out()
    assert missing.value.pointer == "/dataset"
