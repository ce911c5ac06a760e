"""Matching a state dict with a network."""

import pytest
import torch
from torch import nn

from worker.distillation.errors import UploadError
from worker.distillation.uploads.key_matching import match, strip_prefixes


def network(width: int = 4, classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 36, classes))


class Wrapped(nn.Module):
    """A network whose own names begin with a prefix that wrappers use."""

    def __init__(self):
        super().__init__()
        self.model = nn.Linear(2, 2)


def test_a_prefix_is_removed_only_if_all_names_share_it():
    assert set(strip_prefixes({"module.model.a": 1, "module.model.b": 2})) == {"a", "b"}
    assert set(strip_prefixes({"model.a": 1, "b": 2})) == {"model.a", "b"}


def test_match_returns_copies_with_the_networks_names_and_types():
    source = network()
    state = {
        name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in source.state_dict().items()
    }
    matched = match(state, network())
    assert all(
        torch.equal(matched[name], tensor) and matched[name].dtype == tensor.dtype
        for name, tensor in source.state_dict().items()
    )
    assert all(
        matched[name].data_ptr() != tensor.data_ptr() and matched[name].is_contiguous()
        for name, tensor in state.items()
    )


def test_the_networks_own_names_that_look_like_a_prefix_are_kept():
    source = Wrapped()
    for prefix in ("", "module."):
        matched = match({prefix + name: tensor for name, tensor in source.state_dict().items()}, Wrapped())
        assert list(matched) == ["model.weight", "model.bias"]


def test_the_batch_counter_may_be_missing():
    state = network().state_dict()
    del state["1.num_batches_tracked"]
    assert match(state, network())["1.num_batches_tracked"] == 0


def test_all_differences_are_listed_with_the_networks_that_fit():
    state = network().state_dict()
    state["extra"] = state.pop("0.bias")
    state["3.weight"] = torch.zeros(3, 7)
    state["3.bias"] = torch.zeros(3, dtype=torch.int8)
    with pytest.raises(UploadError) as caught:
        match(state, network(), "`small`", lambda: ["`other`"])
    text = caught.value.message
    assert "`small`" in text and "1 missing (0.bias)" in text and "1 unexpected (extra)" in text
    assert "3.weight is (3, 7) instead of (3, 144)" in text and "3.bias is torch.int8" in text
    assert "`other`" in caught.value.hint and len(caught.value.problems) == 4


def test_lists_are_bounded():
    with pytest.raises(UploadError) as caught:
        match({f"key{number}" * 100: torch.zeros(1) for number in range(1000)}, network())
    assert "and 992 more" in caught.value.message and len(caught.value.message) < 3000


def test_alternatives_are_not_searched_if_the_network_fits():
    match(network().state_dict(), network(), alternatives=lambda: pytest.fail("asked"))


def test_values_too_large_for_single_precision_are_named():
    state = network().state_dict()
    state["0.bias"] = torch.full((4,), 1e300, dtype=torch.float64)
    with pytest.raises(UploadError, match=r"`0\.bias` has values too large"):
        match(state, network())
