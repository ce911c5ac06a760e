"""Weights computed from parts, compared with the weights that torch's own layers compute."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from worker.distillation.errors import UploadError
from worker.distillation.uploads.folding import fold, weight_of_norm, weight_of_spectrum
from worker.distillation.uploads.key_matching import match
from worker.distillation.uploads.state_dicts import read_state_dict
from worker.distillation.uploads.weights_file.leaves import Held


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 3))


def pruned(net: nn.Sequential) -> None:
    prune.l1_unstructured(net[0], "weight", amount=0.5)
    prune.random_unstructured(net[2], "bias", amount=1)


def normed(net: nn.Sequential) -> None:
    parametrizations.weight_norm(net[0])
    parametrizations.weight_norm(net[2], dim=None)
    with torch.no_grad():
        net[0].parametrizations.weight.original0.mul_(3)


def normed_over_rows(net: nn.Sequential) -> None:
    parametrizations.weight_norm(net[2], dim=1)


def spectral(net: nn.Sequential) -> None:
    parametrizations.spectral_norm(net[0])
    parametrizations.spectral_norm(net[2])
    net(torch.randn(1, 2, 4, 4))


@pytest.mark.parametrize("change", [pruned, normed, normed_over_rows, spectral])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_are_those_that_torch_computes(tmp_path: Path, change: Callable[[nn.Sequential], None], prefix: str):
    net = network()
    change(net)
    net.eval()
    torch.save({prefix + name: tensor for name, tensor in net.state_dict().items()}, tmp_path / "upload")
    state = read_state_dict(tmp_path / "upload")
    assert set(state) == set(network().state_dict())
    plain = network()
    plain.load_state_dict(match(state, plain))
    image = torch.randn(5, 2, 4, 4)
    torch.testing.assert_close(plain(image), net(image))
    for layer in (0, 2):
        torch.testing.assert_close(plain[layer].weight, net[layer].weight)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_of_torchs_old_hooks(tmp_path: Path):
    net = network()
    nn.utils.weight_norm(net[0])
    nn.utils.spectral_norm(net[2])
    net(torch.randn(1, 2, 4, 4))
    net.eval()
    image = torch.randn(5, 2, 4, 4)
    expected = net(image)
    torch.save(net.state_dict(), tmp_path / "upload")
    plain = network()
    plain.load_state_dict(match(read_state_dict(tmp_path / "upload"), plain))
    torch.testing.assert_close(plain(image), expected)


def test_an_unknown_parametrisation_is_refused_with_a_hint_to_remove_it(tmp_path: Path):
    class Symmetric(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight.triu() + weight.triu(1).T

    net = nn.Sequential(nn.Linear(3, 3))
    parametrize.register_parametrization(net[0], "weight", Symmetric())
    torch.save(net.state_dict(), tmp_path / "upload")
    with pytest.raises(UploadError, match=r"`0\.weight` is parametrised by code") as caught:
        read_state_dict(tmp_path / "upload")
    assert "remove_parametrizations" in caught.value.hint


def test_formulas_on_numbers_done_by_hand():
    norm = weight_of_norm(torch.tensor([[10.0], [2.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    assert norm.tolist() == [[6.0, 8.0], [0.0, 2.0]]
    assert weight_of_norm(torch.tensor(10.0), torch.tensor([[3.0], [4.0]])).tolist() == [[6.0], [8.0]]
    spectrum = weight_of_spectrum(
        torch.tensor([[4.0, 0.0], [0.0, 1.0]]), torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])
    )
    assert spectrum.tolist() == [[1.0, 0.0], [0.0, 0.25]]


def test_names_that_only_look_like_parts_are_kept():
    names = ("a_orig", "b_g", "c.original", "d_mask", "w.parametrizations.x", "e_v")
    found = fold({name: Held(torch.ones(2)) for name in names})
    assert list(found.tensors) == list(names) and not found.names
    both = fold({name: Held(torch.ones(2)) for name in ("a", "a_orig", "a_mask")})
    assert set(both.tensors) == {"a", "a_orig", "a_mask"}


def test_spectral_norm_along_another_dimension_is_refused(tmp_path: Path):
    net = parametrizations.spectral_norm(nn.ConvTranspose2d(2, 3, 3))
    torch.save(net.state_dict(), tmp_path / "upload")
    with pytest.raises(UploadError, match="another dimension"):
        read_state_dict(tmp_path / "upload")
