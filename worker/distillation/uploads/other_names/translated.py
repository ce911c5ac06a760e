"""The candidates of a file, and those among them that other code names, under the names of a library."""

from collections.abc import Sequence

from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.network_parts import largest_first
from worker.distillation.uploads.other_names import original_code, transformers

MOST_CANDIDATES = 3


def with_translations(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates, and the translations of the largest."""
    largest = largest_first(candidates)[:MOST_CANDIDATES]
    translated = [transformers.translated(each) or original_code.translated(each) for each in largest]
    return [*candidates, *(each for each in translated if each is not None)]
