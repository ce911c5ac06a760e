"""The bias of a first convolution that code has replaced, in a network that has none there: made part of the norm behind it.

`network.conv1 = nn.Conv2d(1, 64, 7, 2, 3)` forgets `bias=False`. A BatchNorm subtracts its mean m, so that
norm(conv(x) + b) with the mean m is norm(conv(x)) with the mean m - b.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from torch import Tensor

from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.network_parts import depth
from worker.distillation.uploads.weights_file.leaves import Computed
from worker.distillation.wording import natural

MEAN = "running_mean"


def without_first_bias(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """The candidates whose first convolution has a bias and a BatchNorm beside it, with the bias in the norm's mean."""
    for candidate in candidates:
        tensors = candidate.tensors
        convolutions = [name for name, leaf in tensors.items() if name.endswith("weight") and len(leaf.shape) == 4]
        path = min(convolutions, key=depth, default="").rpartition(".")[0]
        bias, beside = tensors.get(f"{path}.bias"), path.rpartition(".")[0]
        means = [
            name
            for name, leaf in tensors.items()
            if name.endswith(f".{MEAN}")
            and name.removesuffix(f".{MEAN}").rpartition(".")[0] == beside
            and bias is not None
            and leaf.shape == bias.shape
        ]
        if bias is not None and means:
            mean = min(means, key=natural)
            moved = Computed(bias.shape, tensors[mean].dtype, (tensors[mean], bias), without)
            kept = {name: moved if name == mean else leaf for name, leaf in tensors.items() if name != f"{path}.bias"}
            yield replace(candidate, tensors=kept, folded=(*candidate.folded, mean))


def without(mean: Tensor, bias: Tensor) -> Tensor:
    """mean - bias."""
    return mean.float() - bias.float()
