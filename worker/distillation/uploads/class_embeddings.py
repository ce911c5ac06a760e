"""Embeddings of classes, uploaded as a file or drawn from a seed.

Shapes: K classes, E dimensions of an embedding.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError, UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.state_dicts import read_tensors

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


def read(path: Path, limits: UploadLimits) -> Tensor:
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
