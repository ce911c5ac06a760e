"""What an archive has: its images by split, and what is left out of it."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from worker.distillation.errors import UploadError
from worker.distillation.wording import counted

One = TypeVar("One")
"""An image with what belongs to it: its class, its mask, its boxes."""


@dataclass
class FoundImages(Generic[One]):
    """Images by split (`train`, `test`, `val`), the numbers of images left out by reason, and what is said about them."""

    splits: dict[str, list[One]]
    left_out: dict[str, int] = field(default_factory=dict, kw_only=True)
    notes: list[str] = field(default_factory=list, kw_only=True)

    def leave_out(self, reason: str, count: int, words: str, **given: object) -> None:
        """Count images that are not read, and say so in `words` for `counted`."""
        if count:
            self.left_out[reason] = self.left_out.get(reason, 0) + count
            self.notes.append(counted(count, words, **given))

    def keep_two_splits(self, images: str, hint: str) -> None:
        """Keep `train` and, if there is one, `test`; without a split `test`, `val` becomes `test`.

        Args:
            images: what the archive must have, for the error: `images with boxes`.

        Raises:
            UploadError: there is no split `train`.
        """
        if not self.splits.get("train"):
            raise UploadError(f"the archive has no training {images}", hint)
        validation = self.splits.pop("val", None)
        if validation and self.splits.get("test"):
            words = "the {n} image[s] of the validation split [was|were] ignored because there is a test split"
            self.leave_out("validation", len(validation), words)
        elif validation:
            self.splits["test"] = validation
            self.notes.append("the validation split is used as the split `test`")
