"""Checkpoints in many forms are read, and the table in the documentation says of them what inspection says."""

import pytest

from docs import inputs_page
from tests.worker.distillation.uploads.variants import VARIANTS, inspected, row


@pytest.mark.parametrize("variant", VARIANTS, ids=[variant.title for variant in VARIANTS])
def test_inspection_finds_the_network_and_the_documentation_says_so(variant):
    said = inspected(variant)
    if variant.network is None:
        assert isinstance(said, str)
    else:
        assert isinstance(said, dict), said
        assert said["network"] == variant.network
    expected = " | ".join(cell.replace("|", "\\|") for cell in row(variant, said))
    assert f"| {expected} |" in inputs_page.PAGE.read_text(encoding="utf-8"), "run python -m docs.inputs_page"
