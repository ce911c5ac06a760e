"""How often a cheaper teacher predicts another class: `python -m benchmarks.loop.agreement --teacher FILE --input JSON --test FILE`.

The teacher is a file of weights, inspected as an upload is; `--input` is its input contract, `--test` a canonical dataset with a
test split (`benchmarks.gpu.images.write_cifar` writes one). The script prints the accuracy of the teacher as it is, and of the teacher
folded, in bf16, and both: its accuracy, the share of images with the same class, and the largest difference of the logits
relative to their size.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.data.images import Images
from worker.distillation.introspection.taps import Tapped
from worker.distillation.teaching.quick_teacher import QuickTeacher
from worker.distillation.training import Training
from worker.distillation.uploads.inspect_upload import inspect

VARIANTS = {
    "folded": {"fold_teacher": True},
    "bf16": {"teacher_precision": "bf16"},
    "folded, bf16": {"fold_teacher": True, "teacher_precision": "bf16"},
}
BATCH = 256


def teacher_of(file: Path, said: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """The frozen network of a file, and the findings of its inspection."""
    with tempfile.TemporaryDirectory(prefix="agreement-") as folder:
        shutil.copyfile(file, Path(folder) / "upload")
        found = inspect({"kind": "teacher", "upload": "upload", "teacher": said}, Path(folder))
        findings = found["findings"]
        contract = read_contract(findings["input"])
        network = networks.build(findings["network"], findings["classes"], contract, findings["options"])
        network.load_state_dict(load_file(Path(folder) / found["path"]))
    return network.eval().requires_grad_(False), findings


def measured(network: nn.Module, images: Images) -> Iterator[dict[str, Any]]:
    """A row for the network as it is, then one for each variant."""
    teacher = Tapped(network, images.contract.blank(torch.device("cpu")))
    with torch.no_grad():
        parts = [images.normalise(part) for part in images.image.split(BATCH)]
        expected = torch.cat([teacher(part).logits for part in parts])
        yield {"teacher": "as it is", "accuracy": _share(expected, images.label)}
        for name, options in VARIANTS.items():
            quick = QuickTeacher(teacher, Training.from_spec({"precision": "fp32", **options}))
            logits = torch.cat([quick(part) for part in parts])
            apart = float((logits - expected).abs().max() / expected.abs().max())
            yield {
                "teacher": name, "norms_folded": quick.norms_folded, "accuracy": _share(logits, images.label),
                "agreement": _share(logits, expected.argmax(1)), "apart": round(apart, 6),
            }  # fmt: skip


def _share(logits: Tensor, label: Tensor) -> float:
    return round(float((logits.argmax(1) == label).float().mean()), 5)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop.agreement", description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, required=True, help="a file of weights")
    parser.add_argument("--input", type=json.loads, required=True, help="its input contract as JSON")
    parser.add_argument("--test", type=Path, required=True, help="a canonical dataset with a test split")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    network, findings = teacher_of(arguments.teacher, {"input": arguments.input})
    print(json.dumps({"file": arguments.teacher.name, "network": findings["network"], "options": findings["options"]}))
    images = Images.load(arguments.test, "test", read_contract(findings["input"]), "cpu")
    for row in measured(network, images):
        print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
