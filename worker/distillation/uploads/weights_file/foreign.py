"""Detection of unsupported files: what they are, and the code that converts them."""

import re
from typing import BinaryIO

from worker.distillation.errors import UploadError
from worker.distillation.uploads.weights_file.contents import SAVE_STATE_DICT

SCRIPT = (
    "Load it and save its weights: `torch.save(torch.jit.load(path, map_location='cpu').state_dict(), 'weights.pt')`."
)
PROGRAM = "Load it and save its weights: `torch.save(torch.export.load(path).state_dict, 'weights.pt')`."
KERAS = (
    "Load it and save its arrays under the network's names: `model = keras.models.load_model(path)`, then "
    "`numpy.savez('weights.npz', **{name: array for name, array in ...})`; convolutions are (H, W, in, out) in Keras and "
    "(out, in, H, W) in torch."
)
TENSORFLOW = (
    "Load it with `reader = tf.train.load_checkpoint(path)`, convert the arrays to torch's names and layout, and save "
    "them with `numpy.savez('weights.npz', **arrays)`."
)
ONNX = (
    "Save the network from which it was exported, `torch.save(network.state_dict(), path)`; or read its arrays with "
    "`{t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}` and `numpy.savez`."
)
FLAX = (
    "Load it with `tree = flax.serialization.msgpack_restore(data)`, convert the arrays to torch's names and layout, and "
    "save them with `numpy.savez('weights.npz', **arrays)`."
)
JOBLIB = "Load it with `joblib.load(path)`, and save the weights with `torch.save(network.state_dict(), 'weights.pt')`."
UNPACK = "Unpack it, and upload the file of weights that it contains."
ONE_ARRAY = "Save all arrays under the network's names: `numpy.savez('weights.npz', **arrays)`."
LFS = "Get the real file with `git lfs pull` or the site's download button, and upload that."
PAGE = "Download the file itself (on GitHub use the `raw` link), check its size, and upload that."

_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (rb"\x89HDF", "an HDF5 file, as Keras writes", KERAS),
    (rb"\x93NUMPY", "a single NumPy array", ONE_ARRAY),
    (rb"GGUF", "a GGUF file", SAVE_STATE_DICT),
    (rb"\x08\x01\x12", "a TensorFlow SavedModel", TENSORFLOW),
    (rb"\x08[\x02-\x14]", "an ONNX file", ONNX),
    (rb"....TFL3", "a TFLite file", TENSORFLOW),
    (rb"[\x81-\x8f][\xa1-\xbf\xd9]|[\xde\xdf]..?.?.?[\xa1-\xbf\xd9]", "a msgpack file, as Flax writes", FLAX),
    (rb"\x78[\x01\x5e\x9c\xda]", "compressed by zlib, as joblib writes", JOBLIB),
    (
        rb"7z\xbc\xaf|Rar!|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|\x04\x22\x4d\x18",
        "an archive of another format than zip, tar or gzip",
        UNPACK,
    ),
    (rb"\x89PNG|\xff\xd8\xff|GIF8", "an image", SAVE_STATE_DICT),
    (rb"%PDF", "a PDF document", SAVE_STATE_DICT),
    (rb"MATLAB 5", "a MATLAB file", ONE_ARRAY),
    (rb"\s*(?i:<!doctype html|<html|<\?xml)", "a web page instead of the file that it links to", PAGE),
)
_TABLE_END = bytes.fromhex("57fb808b247547db")
"""The last bytes of the table files of TensorFlow checkpoints."""
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+")


def refusal(file: BinaryIO, size: int) -> UploadError:
    """The error for a file in an unsupported format: what the file is, and what to do."""
    file.seek(0)
    head = file.read(1024)
    if not head:
        return UploadError("the file is empty", "Upload the file again.")
    if head.startswith(b"version https://git-lfs"):
        found = re.search(rb"size (\d{1,15})", head)
        of = f" of {int(found.group(1))} bytes" if found else ""
        return UploadError(f"the file is a Git LFS pointer of {size} bytes instead of the real file{of}", LFS)
    for pattern, what, hint in _BEGINNINGS:
        if re.match(pattern, head, re.DOTALL):
            return UploadError(f"the file is {what}, which is not supported", hint)
    file.seek(max(0, size - 8))
    if file.read(8) == _TABLE_END:
        return UploadError("the file is a TensorFlow checkpoint, which is not supported", TENSORFLOW)
    if _TEXT.fullmatch(head) and _is_text(head):
        return UploadError("the file is text, neither safetensors nor a checkpoint", SAVE_STATE_DICT)
    if not head.strip(b"\0"):
        return UploadError("the file begins with zeros, probably because its download was interrupted", PAGE)
    message = "the file is neither safetensors nor a checkpoint written by `torch.save`, or it is cut short"
    return UploadError(message, SAVE_STATE_DICT)


def _is_text(head: bytes) -> bool:
    try:
        head[:-3].decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 6
    return True


def refuse_program(names: list[str]) -> None:
    """Refuse a zip file with a program or with weights of another library, recognised by the names of its entries.

    Raises:
        UploadError: the zip file is one of these.
    """
    inner = {name.partition("/")[2] for name in names} | set(names)
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise UploadError("the file is a TorchScript program, which contains code and is not supported", SCRIPT)
    programs = {"archive_format", "serialized_exported_program.json", "serialized_state_dict.pt"}
    if inner & programs or any(name.startswith("models/") and name.endswith(".json") for name in inner):
        raise UploadError("the file is an exported program (`.pt2`), which can run code and is not supported", PROGRAM)
    if "model.weights.h5" in inner:
        raise UploadError("the file is a Keras model (`.keras`), which is not supported", KERAS)
    if any(name.endswith("saved_model.pb") for name in inner):
        raise UploadError("the archive contains a TensorFlow SavedModel, which is not supported", TENSORFLOW)
    if any(re.search(r"\.data-\d{5}-of-\d{5}$", name) for name in inner):
        raise UploadError("the archive contains a TensorFlow checkpoint, which is not supported", TENSORFLOW)


def refuse_classes(classes: frozenset[str]) -> None:
    """Refuse a pickle of another library, recognised by the code that it names.

    Raises:
        UploadError: the pickle is one of these.
    """
    if any(name.startswith("joblib.") for name in classes):
        raise UploadError("the file is a joblib pickle, which is not supported", JOBLIB)
    if any(name.startswith("sklearn.") for name in classes):
        raise UploadError("the file is a scikit-learn model, not a torch network", SAVE_STATE_DICT)
    if any(name.startswith(("torch.jit.", "torch._C.")) and "Script" in name for name in classes):
        raise UploadError("the file contains a TorchScript program, which contains code and is not supported", SCRIPT)
