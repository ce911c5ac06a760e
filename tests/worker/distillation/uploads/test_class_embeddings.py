"""Embeddings of classes, and the noisy layer after them."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from worker.distillation.errors import SpecError, UploadError
from worker.distillation.synthesis.noisy_layer import NoisyLayer
from worker.distillation.uploads import class_embeddings
from worker.distillation.uploads.class_embeddings import orthogonal
from worker.distillation.uploads.inspect_upload import inspect


@pytest.mark.parametrize(("classes", "dimensions"), [(2, 4), (5, 5), (10, 64)])
def test_embeddings_are_orthogonal_and_depend_only_on_the_seed(classes, dimensions):
    rows = orthogonal(classes, dimensions, 3)
    torch.testing.assert_close(rows @ rows.T, torch.eye(classes), atol=1e-5, rtol=0)
    torch.manual_seed(9)
    assert torch.equal(rows, orthogonal(classes, dimensions, 3))
    assert not torch.equal(rows, orthogonal(classes, dimensions, 4))


def test_with_more_classes_than_dimensions_embeddings_have_length_one():
    torch.testing.assert_close(orthogonal(9, 4, 0).norm(dim=1), torch.ones(9))


@pytest.mark.parametrize("count", [12, 10])
def test_each_set_of_classes_has_its_own_linear_layer(count):
    layer = NoisyLayer(embedding=6, latent=3, sets=3, images=4)
    layer.draw(torch.Generator().manual_seed(0))
    rows = torch.randn(4, 6).repeat(3, 1)[:count]
    given = layer(rows)
    assert given.shape == (count, 3)
    normal = (rows - rows.mean(0)) / (rows.var(0, correction=0) + 1e-5).sqrt()
    for place in range(count):
        expected = normal[place] @ layer.weight[place // 4] + layer.bias[place // 4, 0]
        torch.testing.assert_close(given[place], expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(given[0], given[4])


def test_draw_resets_all_parameters():
    layer, draw = NoisyLayer(6, 3, 2, 4), torch.Generator().manual_seed(0)
    layer.draw(draw)
    first = layer.weight.clone()
    nn.init.constant_(layer.norm.weight, 7)
    layer.draw(draw)
    assert not torch.equal(first, layer.weight)
    assert layer.weight.abs().max() <= 6**-0.5
    assert torch.equal(layer.norm.weight, torch.ones(6))


def test_embeddings_are_uploaded_inspected_and_read_back(tmp_path):
    rows = torch.randn(3, 5)
    save_file({"embeddings": rows.half()}, tmp_path / "sent")
    answer = inspect({"kind": "file", "upload": "sent", "options": {"kind": "embeddings"}}, tmp_path)
    assert {name: answer["findings"][name] for name in ("classes", "size")} == {"classes": 3, "size": 5}
    path = tmp_path / answer["path"]
    torch.testing.assert_close(class_embeddings.load(path, 3, torch.device("cpu")), rows.half().float())
    with pytest.raises(SpecError, match="/source/embeddings: has 3 classes, and the teacher has 4"):
        class_embeddings.load(path, 4, torch.device("cpu"))


@pytest.mark.parametrize(
    "sent",
    [{"rows": torch.zeros(3, 5)}, {"embeddings": torch.zeros(3)}, {"embeddings": torch.zeros(1, 5)},
     {"embeddings": torch.zeros(3, 5), "more": torch.zeros(1)}, {"embeddings": torch.zeros(3, 5, dtype=torch.int64)}],
    ids=["name", "vector", "one class", "more", "integers"],
)  # fmt: skip
def test_other_files_are_refused(sent, tmp_path):
    save_file(sent, tmp_path / "sent")
    with pytest.raises(UploadError, match="one float matrix named 'embeddings'"):
        inspect({"kind": "file", "upload": "sent", "options": {"kind": "embeddings"}}, tmp_path)
