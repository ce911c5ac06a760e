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
"""The name of the only tensor in a file."""


def orthogonal(classes: int, dimensions: int, seed: int) -> Tensor:
    """Embeddings (K, E) of length 1 that depend only on the seed; orthogonal if E is at least K."""
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(classes, dimensions, generator=random)
    if dimensions < classes:
        return nn.functional.normalize(rows, dim=1)
    basis_EK, _ = torch.linalg.qr(rows.T)
    return basis_EK.T.contiguous()


def read(path: Path, limits: UploadLimits) -> Tensor:
    """Read embeddings (K, E) from an uploaded file with one matrix `embeddings`, one row per class.

    Raises:
        UploadError: the file has other content.
    """
    tensors = read_tensors(path, limits)
    rows = tensors.get(KEY)
    if rows is None or len(tensors) > 1 or rows.ndim != 2 or len(rows) < 2 or not rows.is_floating_point():
        hint = "Write `safetensors.torch.save_file({'embeddings': rows}, path)`."
        raise UploadError(f"the file must contain one float matrix named {KEY!r} with one row per class", hint)
    return rows.float().contiguous()


def load(path: Path, classes: int, device: torch.device) -> Tensor:
    """The embeddings (K, E) of an inspected file.

    Raises:
        SpecError: their number of classes differs from the teacher's.
    """
    rows = load_file(path, device=str(device))[KEY]
    if len(rows) != classes:
        message = f"has {len(rows)} classes, and the teacher has {classes}"
        raise SpecError([Problem("/source/embeddings", message)])
    return rows
