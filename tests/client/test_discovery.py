import json
from pathlib import Path

import pytest

from distillery_client.discovery import Service, find
from distillery_client.errors import Misconfigured


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of a running service, in a parent of the working folder."""
    for name in ("DISTILL_URL", "DISTILL_KEY", "DISTILL_DATA"):
        monkeypatch.delenv(name, raising=False)
    data = tmp_path / ".distillery"
    (tmp_path / "deep" / "down").mkdir(parents=True)
    data.mkdir()
    (data / "key").write_text("dsk_embedded\n")
    (data / "service.json").write_text(json.dumps({"url": "http://127.0.0.1:8000", "key_file": str(data / "key")}))
    monkeypatch.chdir(tmp_path / "deep" / "down")
    return data


def test_the_embedded_service_is_found_from_a_subfolder(embedded: Path) -> None:
    assert find() == Service("http://127.0.0.1:8000", "dsk_embedded")


def test_arguments_override_the_environment(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_URL", "http://environment/")
    monkeypatch.setenv("DISTILL_KEY", "dsk_environment")
    assert find() == Service("http://environment", "dsk_environment")
    assert find("http://argument", "dsk_argument") == Service("http://argument", "dsk_argument")


def test_the_embedded_key_is_not_sent_to_another_url(embedded: Path) -> None:
    assert find("http://127.0.0.1:8000/").key == "dsk_embedded"
    with pytest.raises(Misconfigured, match="DISTILL_KEY"):
        find("http://elsewhere:8000")


def test_a_data_folder_can_be_given(embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert find(data=embedded).key == "dsk_embedded"
    monkeypatch.setenv("DISTILL_DATA", str(embedded))
    assert find().key == "dsk_embedded"


def test_the_error_says_what_is_missing(embedded: Path) -> None:
    (embedded / "key").unlink()
    with pytest.raises(Misconfigured, match="cannot be read"):
        find()
    (embedded / "service.json").unlink()
    with pytest.raises(Misconfigured, match="make up"):
        find()


def test_a_key_is_never_shown(embedded: Path) -> None:
    assert "dsk_embedded" not in repr(find())
