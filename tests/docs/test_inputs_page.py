"""docs/inputs.md has the tables of the tests."""

import pytest

from docs.inputs_page import PAGE, SECTION, renewed


@pytest.mark.slow  # the tests of the tables inspect all of their files too
def test_the_page_is_fresh() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert renewed(text) == text, "run `python -m docs.inputs_page`"


def test_a_section_is_replaced_and_the_rest_kept() -> None:
    page = "a\n<!-- inputs: tests.worker.distillation.data.variants -->\nobsolete\n<!-- end of inputs -->\nb\n"
    new = renewed(page)
    assert new.startswith("a\n<!-- inputs") and new.endswith("<!-- end of inputs -->\nb\n")
    assert "obsolete" not in new and "| class folders |" in new and len(SECTION.findall(new)) == 1
