"""Every form of datasets in the table is inspected as the table says."""

from pathlib import Path

import pytest

from tests.worker.distillation.data.variants import VARIANTS, Variant
from worker.distillation.data.images import warnings_of
from worker.distillation.errors import UploadError
from worker.distillation.uploads.inspect_upload import inspect


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda each: f"{each.form} {dict(each.options) or ''}")
def test_inspection_says_what_the_table_says(variant: Variant, tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "upload").write_bytes(variant.made())
    job = {"kind": "dataset", "upload": "upload", "options": dict(variant.options)}
    if not variant.splits:
        with pytest.raises(UploadError) as caught:
            inspect(job, tmp_path)
        assert variant.says in str(caught.value) and caught.value.hint
        return
    result = inspect(job, tmp_path)
    found = result["findings"]
    assert list(warnings_of(tmp_path / result["path"])) == found["warnings"]
    assert found["splits"] == variant.splits
    assert found["class_names"] == list(variant.classes) and found["classes"] == len(variant.classes)
    assert found["labels"] == ("class" if variant.classes else "none")
    assert found["altered"] == variant.altered
    assert found["left_out"] == variant.left_out
    assert variant.says in "\n".join(found["warnings"])
    quiet = not (variant.says or variant.altered or variant.left_out)
    usual = ("the labels of", "also in `train`", "several times with different classes")  # made images are few
    assert not quiet or all(any(each in words for each in usual) for words in found["warnings"])


def test_there_are_many_forms() -> None:
    assert len(VARIANTS) >= 60 and len({(each.form, str(each.options), each.made) for each in VARIANTS}) == len(
        VARIANTS
    )
