"""Instance discrimination: the memory, and the loss against its formula."""

import torch

from worker.distillation.synthesis.instances import FeatureMemory, Head, contrast

CPU = torch.device("cpu")


def test_contrast_equals_the_formula():
    draw = torch.Generator().manual_seed(0)
    rows = [torch.nn.functional.normalize(torch.randn(n, 5, generator=draw), dim=1) for n in (4, 4, 6)]
    view, other, negatives = rows
    total = 0.0
    for i in range(4):
        alike = [torch.exp((view[i] * each).sum() / 0.3) for each in (*other, *negatives)]
        total = total - torch.log(alike[i] / sum(alike))
    torch.testing.assert_close(contrast(view, other, negatives, 0.3), total / 4)


def test_contrast_is_lowest_if_views_agree_and_images_differ():
    distinct, same = torch.eye(4), torch.ones(4, 4) / 2
    none = torch.zeros(0, 4)
    assert contrast(distinct, distinct, none, 0.1) < 1e-3
    torch.testing.assert_close(contrast(same, same, none, 0.1), torch.log(torch.tensor(4.0)))
    assert contrast(distinct, distinct, distinct, 0.1) > contrast(distinct, distinct, none, 0.1)


def test_memory_keeps_the_newest():
    memory = FeatureMemory(5, 2, CPU)
    assert len(memory.draw(3, torch.Generator())) == 0
    for start in (0, 3, 6):
        memory.add(torch.arange(start, start + 3.0)[:, None].expand(3, 2))
    assert len(memory) == 5
    assert sorted(memory.rows[:, 0].tolist()) == [4, 5, 6, 7, 8]
    restored = FeatureMemory(5, 2, CPU)
    restored.load_state_dict(memory.state_dict())
    drawn = [each.draw(20, torch.Generator().manual_seed(1)) for each in (memory, restored)]
    assert torch.equal(*drawn)
    assert set(drawn[0][:, 0].tolist()) <= {4, 5, 6, 7, 8}


def test_embeddings_have_length_one():
    torch.testing.assert_close(Head(6, 3)(torch.randn(8, 6)).norm(dim=1), torch.ones(8))
