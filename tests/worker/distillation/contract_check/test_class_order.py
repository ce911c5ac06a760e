"""Labels by the names of classes."""

import pytest
import torch

from worker.distillation.contract import InputContract
from worker.distillation.contract_check.class_order import in_order
from worker.distillation.data.images import Images

GREY = InputContract(1, 8, 8, (0.25,), (0.5,))
OWN, WANTED = ("b", "c", "a"), ("a", "b", "c")


def images(**fields: torch.Tensor) -> Images:
    return Images.of(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), fields, OWN, GREY)


def test_every_sample_keeps_the_name_of_its_class() -> None:
    label = torch.tensor([0, 1, 2, 0])
    other = in_order(images(label=label), WANTED)
    assert [WANTED[number] for number in other.label] == [OWN[number] for number in label]
    assert other.class_names == WANTED


@pytest.mark.parametrize("name", ["label", "target"])
def test_every_column_keeps_its_name(name: str) -> None:
    value = torch.arange(12).view(4, 3)
    other = in_order(images(**{name: value}), WANTED).fields[name]
    assert all(torch.equal(other[:, WANTED.index(each)], value[:, OWN.index(each)]) for each in OWN)


@pytest.mark.parametrize("wanted", [(), OWN, ("a", "b"), ("a", "b", "d"), ("a", "b", "b")])
def test_other_names_change_nothing(wanted: tuple[str, ...]) -> None:
    given = images(label=torch.tensor([0, 1, 2, 0]))
    assert in_order(given, wanted) is given
