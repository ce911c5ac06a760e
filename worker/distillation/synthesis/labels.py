"""Embeddings of classes, and a layer of noise that turns them into what a generator reads.

Shapes: B batch, K classes, E dimensions of an embedding, Z of what the generator reads, S sets of one image a class.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError, UploadError
from worker.distillation.limits import Limits
from worker.distillation.uploads import read_tensors

KEY = "embeddings"
"""The one tensor of a file."""


def orthogonal(classes: int, dimensions: int, seed: int) -> Tensor:
    """Embeddings (K, E) of length 1 that depend on the seed alone; at right angles where E is at least K."""
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(classes, dimensions, generator=random)
    if dimensions < classes:
        return nn.functional.normalize(rows, dim=1)
    basis_EK, _ = torch.linalg.qr(rows.T)
    return basis_EK.T.contiguous()


def read(path: Path, limits: Limits) -> Tensor:
    """Embeddings (K, E) as a user sends them: a file of weights with the one matrix `embeddings`, a row a class.

    Raises:
        UploadError: it is not that.
    """
    tensors = read_tensors(path, limits)
    rows = tensors.get(KEY)
    if rows is None or len(tensors) > 1 or rows.ndim != 2 or len(rows) < 2 or not rows.is_floating_point():
        hint = "Write `safetensors.torch.save_file({'embeddings': rows}, path)`."
        raise UploadError(f"the file must hold one matrix of numbers called {KEY!r}, a row a class", hint)
    return rows.float().contiguous()


def load(path: Path, classes: int, device: torch.device) -> Tensor:
    """The embeddings (K, E) of an inspected file.

    Raises:
        SpecError: they are of another number of classes than the teacher's.
    """
    rows = load_file(path, device=str(device))[KEY]
    if len(rows) != classes:
        words = f"are of {len(rows)} classes, and the teacher tells {classes} apart"
        raise SpecError([Problem("/source/embeddings", words)])
    return rows


class NoisyLayer(nn.Module):
    """BatchNorm of embeddings, then a linear layer for each set of images, whose weights are drawn and not learnt from
    one round to the next (within a round they are trained).

    Tran et al., arXiv:2310.00258, section 3; weights and biases are uniform in +-1/sqrt(E), as torch's linear layers are.
    """

    def __init__(self, embedding: int, latent: int, sets: int, images: int):
        """`images`: how many a set has."""
        super().__init__()
        self.images = images
        self.norm = nn.BatchNorm1d(embedding)
        self.weight = nn.Parameter(torch.zeros(sets, embedding, latent))
        self.bias = nn.Parameter(torch.zeros(sets, 1, latent))

    @torch.no_grad()
    def draw(self, random: torch.Generator) -> None:
        """Forget what was learnt, and draw new weights with a generator on the CPU."""
        self.norm.reset_parameters()
        for each in (self.weight, self.bias):
            each.copy_((2 * torch.rand(each.shape, generator=random) - 1) / self.weight.shape[1] ** 0.5)

    def forward(self, embedding_BE: Tensor) -> Tensor:
        """What the generator reads (B, Z); the batch is S sets one after another, the last one perhaps cut short."""
        count, sets = len(embedding_BE), len(self.weight)
        normal = nn.functional.pad(self.norm(embedding_BE), (0, 0, 0, sets * self.images - count))
        return (normal.unflatten(0, (sets, self.images)) @ self.weight + self.bias).flatten(0, 1)[:count]
