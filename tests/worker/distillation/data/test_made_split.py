"""The test split that is made of training images."""

import pytest
import torch

from worker.distillation.data.packed import Packed
from worker.distillation.data.reading import made_split


def packed(count: int, classes: int = 3, labels: str = "class") -> Packed:
    """Images whose pixels are their number."""
    image = torch.arange(count).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).to(torch.uint8).contiguous()
    names = tuple(map(str, range(classes)))
    return Packed("npz", {"train": (image, torch.arange(count) % classes)}, names, labels=labels)  # type: ignore[arg-type]


@pytest.mark.parametrize("at_once", [1, 4, 1000])
def test_each_sample_is_in_one_split_with_its_label(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_split, "at_once", lambda _: at_once)
    given = packed(60)
    made_split.make(given, 0.2)
    (train, train_label), (test, test_label) = given.splits["train"], given.splits["test"]
    numbers = torch.cat([train[:, 0, 0, 0], test[:, 0, 0, 0]]).long()
    assert numbers.sort().values.tolist() == list(range(60))
    assert torch.equal(torch.cat([train_label, test_label]), numbers % 3)
    assert test_label.bincount().tolist() == [4, 4, 4]
    assert train[:, 0, 0, 0].tolist() == sorted(train[:, 0, 0, 0].tolist())
    assert given.made_split == {"fraction": 0.2, "seed": 0, "images": 12} and "12 of 60" in given.warnings[0]


def test_the_same_images_are_chosen_again() -> None:
    chosen = []
    for _ in range(2):
        given = packed(60)
        made_split.make(given, 0.2)
        chosen.append(given.splits["test"][0])
    assert torch.equal(*chosen)


@pytest.mark.parametrize(
    ("given", "fraction"),
    [(packed(999), None), (packed(1200), 0.0), (packed(3), 0.5), (packed(1200, labels="none"), 0.5)],
)
def test_no_split_is_made(given: Packed, fraction: float | None) -> None:
    made_split.make(given, fraction)
    assert list(given.splits) == ["train"] and given.made_split is None and given.warnings == []
