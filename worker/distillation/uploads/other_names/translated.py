"""The candidates of a file, and what they are under the names and with the layers of a library."""

from collections.abc import Sequence

from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.network_parts import largest_first
from worker.distillation.uploads.other_names import original_code, transformers
from worker.distillation.uploads.other_names.first_bias import without_first_bias

MOST_CANDIDATES = 3


def with_translations(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates, the translations of the largest, and those of them whose first convolution has a bias, without it."""
    largest = largest_first(candidates)[:MOST_CANDIDATES]
    translated = [transformers.translated(each) or original_code.translated(each) for each in largest]
    renamed = [each for each in translated if each is not None]
    return [*candidates, *renamed, *without_first_bias([*largest, *renamed])]
