"""The precision of a forward pass: bfloat16 autocast where the hardware supports it, float32 where maths needs it."""

from typing import Literal

import torch
from torch import Tensor

Precision = Literal["auto", "fp32", "bf16"]


def resolve(precision: Precision, device: torch.device) -> torch.dtype:
    """The autocast dtype: `auto` is bfloat16 on hardware with native bfloat16, float32 elsewhere."""
    if precision == "auto":
        return torch.bfloat16 if has_fast_bf16(device) else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is native to the device: AVX512-BF16 or AMX on a CPU with oneDNN, Ampere or later on CUDA."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        native = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
        return bool(native) and torch.backends.mkldnn.is_available()
    return False


def use_fast_kernels(device: torch.device, tf32: bool) -> None:
    """On a GPU: let cuDNN measure which of its kernels is fastest for each shape, and let float32 products of matrices and
    convolutions use TF32 (10 bits of mantissa) or not. Nothing else changes; a CPU is left as it is."""
    if device.type != "cuda":
        return
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")


def fp32(device: torch.device) -> torch.autocast:
    """A context without autocast, for maths that needs float32; cast inputs with `.float()` inside."""
    return torch.autocast(device.type, enabled=False)


def single(x: Tensor) -> Tensor:
    """`x` as float32; float64 is kept."""
    return x if x.dtype == torch.float64 else x.float()
