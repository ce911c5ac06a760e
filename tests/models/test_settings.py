"""The defaults are the embedded set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from models.settings import Settings, settings


def test_everything_embedded_lies_in_the_data_folder(tmp_path: Path) -> None:
    found = Settings(data=tmp_path)
    assert found.database == f"sqlite:///{tmp_path}/distillery.db"
    assert found.storage == f"file://{tmp_path}/blobs"
    assert found.broker == "filesystem://"
    assert (found.key_file, found.work_folder) == (tmp_path / "key", tmp_path / "work")


def test_what_is_set_stands(configure: Callable[..., Any]) -> None:
    configure(database_url="postgresql+psycopg://somewhere/x", storage_url="s3://b/p", broker_url="redis://r", port=1)
    assert (settings().database, settings().storage) == ("postgresql+psycopg://somewhere/x", "s3://b/p")
    assert (settings().broker, settings().port) == ("redis://r", 1)


def test_a_relative_folder_is_where_the_process_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings(data=Path("here")).database == f"sqlite:///{tmp_path}/here/distillery.db"


@pytest.mark.parametrize("name", ["lease_seconds", "beat_seconds", "upload_bytes", "engine_threads"])
def test_nonsense_is_refused(name: str, configure: Callable[..., Any]) -> None:
    with pytest.raises(ValidationError):
        configure(**{name: 0})


def test_a_beat_fits_into_a_lease() -> None:
    with pytest.raises(ValidationError, match="at most half"):
        Settings(lease_seconds=1, beat_seconds=0.6)


def test_a_broker_that_was_never_tried_is_refused() -> None:
    with pytest.raises(ValidationError, match="amqp:// is not supported"):
        Settings(broker_url="amqp://localhost")
