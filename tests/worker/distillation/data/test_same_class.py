"""The sampler `per_class`: samples drawn from the class of an anchor."""

from collections import Counter

import pytest
import torch

from worker.distillation.data.samplers import generator, lonely, same_class

LABEL = torch.tensor([0, 1, 0, 2, 2, 0, 1, 0, 2, 0])


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_drawn_images_are_others_of_the_class(count):
    anchors = torch.randperm(10)
    drawn = same_class(LABEL, anchors, count, generator(0, "mates", 0))
    assert drawn.shape == (10, count)
    assert torch.equal(LABEL[drawn], LABEL[anchors][:, None].expand(-1, count))
    assert not (drawn == anchors[:, None]).any()
    for anchor, row in zip(anchors, drawn.tolist(), strict=True):
        others = int((LABEL[anchor] == LABEL).sum()) - 1
        assert others < count or len(set(row)) == count  # with replacement only if there are too few


def test_sets_of_others_are_drawn_uniformly():
    # the class 0 has five samples: an anchor has 12 ordered pairs of its four others
    anchors = torch.full((24_000,), 2)
    drawn = same_class(LABEL, anchors, 2, generator(0, "mates", 1))
    counts = Counter(map(tuple, drawn.tolist()))
    assert set(counts) == {(a, b) for a in (0, 5, 7, 9) for b in (0, 5, 7, 9) if a != b}
    chi_squared = sum((count - 2000) ** 2 / 2000 for count in counts.values())
    assert chi_squared < 31.3  # 11 degrees of freedom, one in a thousand


def test_draws_with_replacement_are_uniform():
    drawn = same_class(LABEL, torch.full((9000,), 3), 4, generator(0, "mates", 2))
    counts = Counter(drawn.flatten().tolist())
    assert set(counts) == {4, 8}
    assert abs(counts[4] - 18_000) < 4 * (36_000 / 4) ** 0.5


def test_draws_depend_on_their_generator_only():
    one, same, other = (same_class(LABEL, torch.arange(10), 3, generator(seed, "mates", 0)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_lonely_classes_are_those_with_one_sample():
    assert lonely(torch.tensor([0, 3, 0, 5, 5, 4])) == [3, 4]
    assert lonely(LABEL) == []
