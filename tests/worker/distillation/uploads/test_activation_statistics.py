"""Files of statistics: as uploaded, and in the canonical form."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from worker.distillation.errors import SpecError, UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.activation_statistics import ActivationStatistics, TapStatistics, read
from worker.distillation.uploads.inspect_upload import inspect

CLASSES, RANK = 3, 4


def good() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    tensors = {}
    for tap, numbers in (("conv1", 6), ("fc:in", 5)):
        tensors[f"{tap}/mean"] = torch.randn(CLASSES, numbers, generator=draw)
        tensors[f"{tap}/factor"] = torch.randn(CLASSES, RANK, numbers, generator=draw)
    return tensors | {"fc:in/minimum": torch.tensor(0.0)}


def covariance() -> dict[str, torch.Tensor]:
    root = torch.randn(CLASSES, 5, 5, generator=torch.Generator().manual_seed(1))
    return {"fc:in/mean": torch.zeros(CLASSES, 5), "fc:in/covariance": root @ root.transpose(1, 2)}


def inspected(tensors, folder):
    save_file(tensors, folder / "sent")
    return inspect({"kind": "file", "upload": "sent", "options": {"kind": "statistics"}}, folder)


def test_an_inspection_finds_classes_rank_and_taps_and_stores_the_values(tmp_path):
    answer = inspected(good(), tmp_path)
    found = answer["findings"]
    assert {name: found[name] for name in ("kind", "classes", "rank", "taps")} == {
        "kind": "statistics", "classes": CLASSES, "rank": RANK, "taps": {"conv1": 6, "fc:in": 5},
    }  # fmt: skip
    kept = load_file(tmp_path / answer["path"])
    assert all(torch.equal(kept[name], tensor) for name, tensor in good().items())
    loaded = ActivationStatistics.load(tmp_path / answer["path"], torch.device("cpu"))
    assert torch.equal(loaded.taps["conv1"].factor, good()["conv1/factor"])


def test_a_covariance_becomes_a_factor_of_it(tmp_path):
    inspected(covariance(), tmp_path)
    factor = load_file(tmp_path / "output/canonical.safetensors")["fc:in/factor"]
    torch.testing.assert_close(factor.transpose(1, 2) @ factor, covariance()["fc:in/covariance"], atol=1e-4, rtol=1e-4)


def test_samples_have_the_statistics_and_are_not_below_the_minimum():
    tap = TapStatistics(good()["fc:in/mean"], good()["fc:in/factor"], torch.tensor(-1e9))
    z = torch.randn(40_000, RANK, generator=torch.Generator().manual_seed(2))
    drawn = tap.sample(torch.full((40_000,), 1), z)
    wanted = tap.factor[1].T @ tap.factor[1]
    assert (drawn.mean(0) - tap.mean[1]).abs().max() < 0.05
    assert (drawn.T.cov() - wanted).abs().max() < 0.03 * wanted.abs().max()
    label = torch.arange(9) % CLASSES
    expected = torch.stack([tap.mean[k] + z[i] @ tap.factor[k] for i, k in enumerate(label.tolist())])
    torch.testing.assert_close(tap.sample(label, z[:9]), expected)
    bounded = TapStatistics(tap.mean, tap.factor, torch.tensor(0.0))
    torch.testing.assert_close(bounded.sample(label, z[:9]), expected.clamp_min(0))


def changed(**changes):
    tensors = good()
    for name, tensor in changes.items():
        name = name.replace("__", "/").replace("fc_in", "fc:in")
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    return tensors


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (changed(fc_in__mean=None), "'fc:in/mean' is required"),
        (changed(fc_in__factor=None), "either a factor or a covariance"),
        (changed(fc_in__mean=torch.zeros(CLASSES, 4)), "of 'fc:in' do not match"),
        (changed(fc_in__mean=torch.zeros(2, 5), fc_in__factor=torch.zeros(2, 4, 5)), "different number of classes or rank"),
        (changed(fc_in__factor=torch.zeros(CLASSES, 7, 5)), "different number of classes or rank"),
        (changed(fc_in__minimum=torch.zeros(2)), "must be one number"),
        (changed(fc_in__variance=torch.zeros(2)), "is not TAP/mean"),
        (changed(fc_in__factor=None, fc_in__covariance=torch.eye(5).expand(3, 5, 5).clone()), "allowed for a single tap only"),
        (changed(fc_in__mean=torch.full((CLASSES, 5), float("nan"))), "NaN or infinite"),
        ({"a": torch.zeros(2)}, "is not TAP/mean"),
        (covariance() | {"fc:in/covariance": -torch.eye(5).expand(3, 5, 5).clone()}, "symmetric and positive semi-definite"),
        (covariance() | {"fc:in/covariance": torch.triu(torch.ones(3, 5, 5))}, "must be symmetric"),
        (covariance() | {"fc:in/covariance": torch.ones(3, 5, 4)}, "shape"),
    ],
)  # fmt: skip
def test_inconsistent_statistics_are_refused(tensors, words, tmp_path):
    save_file(tensors, tmp_path / "sent")
    with pytest.raises(UploadError, match=words):
        read(tmp_path / "sent", UploadLimits())


def test_unknown_kinds_are_refused_with_a_list_of_known_ones(tmp_path):
    save_file(good(), tmp_path / "sent")
    with pytest.raises(SpecError, match="`weights`, `statistics`"):
        inspect({"kind": "file", "upload": "sent", "options": {"kind": "poem"}}, tmp_path)
