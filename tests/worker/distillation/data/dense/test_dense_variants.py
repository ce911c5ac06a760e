"""Every form of datasets of boxes, masks and depth in the tables is inspected as they say."""

from pathlib import Path

import pytest

from tests.worker.distillation.data.dense.dense_variants import VARIANTS, DenseVariant
from worker.distillation.errors import UploadError
from worker.distillation.uploads.inspect_upload import inspect


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda each: f"{each.labels} {each.form} {dict(each.options) or ''}")
def test_inspection_says_what_the_tables_say(variant: DenseVariant, tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "upload").write_bytes(variant.made())
    job = {"kind": "dataset", "upload": "upload", "options": {"labels": variant.labels, **variant.options}}
    if not variant.splits:
        with pytest.raises(UploadError) as caught:
            inspect(job, tmp_path)
        assert variant.says in str(caught.value) and caught.value.hint
        return
    found = inspect(job, tmp_path)["findings"]
    assert (found["splits"], found["labels"]) == (variant.splits, variant.labels)
    assert not variant.classes or found["class_names"] == list(variant.classes)
    assert variant.says in "\n".join(found["warnings"])
    assert variant.says or not any("left out" in words or "scaled" in words for words in found["warnings"])
