"""References to datasets: what they may look like, and what the operator allows."""

import pytest

from models.settings import Settings
from models.storage.dataset_sources import Source, SourceRefused, allowed_source

ALLOWED = Settings(dataset_sources="file:///srv/data, s3://shared/sets")


@pytest.mark.parametrize(
    "reference", ["file:///srv/data", "file:///srv/data/birds", "s3://shared/sets/birds/", "s3://shared/sets"]
)
def test_what_is_below_a_listed_source_is_allowed(reference: str) -> None:
    assert allowed_source(reference, ALLOWED) == Source.parse(reference)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("file:///srv/database", "operator"),
        ("file:///", "operator"),
        ("s3://shared/sets2", "operator"),
        ("s3://other/sets", "operator"),
        ("s3://shared", "operator"),
        ("file:///srv/data/../secret", "must be"),
        ("file://host/srv/data", "must be"),
        ("https://example.com/srv/data", "must be"),
        ("/srv/data", "must be"),
        ("s3:///sets", "must be"),
        ("s3://shared/sets?versionId=1", "must be"),
    ],
)
def test_all_others_are_refused(reference: str, words: str) -> None:
    with pytest.raises(SourceRefused, match=words):
        allowed_source(reference, ALLOWED)
    with pytest.raises(SourceRefused):
        allowed_source(reference, Settings())
