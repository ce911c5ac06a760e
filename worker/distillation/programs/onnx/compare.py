"""The comparison: the network that was made of an ONNX file against onnxruntime."""

from pathlib import Path

import torch
from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.programs.onnx.reading import is_channels_last, refuse
from worker.distillation.programs.packing import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE

BATCHES = (1, 3)
LOOSENESS = 10
"""onnxruntime fuses layers, so that more is allowed than between two runs of torch."""


def compare(path: Path, network: nn.Module, contract: InputContract) -> None:
    """See that onnxruntime gives the network's logits for random images in two batches.

    A file whose batch is fixed is compared twice at that size.

    Raises:
        UploadError: it gives others, or does not run the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 4
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        order = (0, 2, 3, 1) if is_channels_last(given.shape, contract) else (0, 1, 2, 3)
        fixed = given.shape[0] if given.shape and isinstance(given.shape[0], int) else None
        for seed, batch in enumerate((fixed, fixed) if fixed else BATCHES):
            shape = (batch, contract.channels, contract.height, contract.width)
            image = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
            (logits,) = session.run(None, {given.name: image.permute(order).contiguous().numpy()})
            with torch.no_grad():
                _compare(torch.from_numpy(logits).double(), network(image).double())
    except _runtime_errors() as error:
        words = (str(error).replace(str(path), "the file").strip().splitlines() or [type(error).__name__])[0][:300]
        raise refuse(f"onnxruntime does not run it: {words}") from error


def _compare(theirs: Tensor, ours: Tensor) -> None:
    if theirs.shape != ours.shape:
        raise refuse(f"onnxruntime gives the shape {tuple(theirs.shape)}, the translation {tuple(ours.shape)}")
    allowed = LOOSENESS * (ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * float(theirs.abs().max()))
    difference = float((theirs - ours).abs().max())
    if not difference <= allowed:
        raise refuse(f"onnxruntime's logits differ from the translation's by {difference:.2g}, more than {allowed:.2g}")


def _runtime_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises on files that it does not take."""
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
    found = (getattr(states, name, None) for name in names)
    return (ValueError, RuntimeError, *(each for each in found if each is not None))
