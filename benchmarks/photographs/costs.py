"""What photographs cost: inspection, loading beside torchvision's ImageFolder, and the memory of a job."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torchvision import datasets, transforms

from benchmarks.bare_engine import job_file
from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.data.images import Images
from worker.distillation.data.packed import Options
from worker.distillation.data.reading.uploads import read_dataset
from worker.distillation.data.shards import LIST, read_list
from worker.distillation.limits import UploadLimits
from worker.distillation.source import Position, SourceContext
from worker.distillation.sources.dataset import Dataset

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CONTRACT = InputContract(3, 224, 224, MEAN, STD)
BATCH = 32


def inspect(upload: Path, folder: Path) -> dict[str, Any]:
    """Read an upload and write its canonical form to `folder`; the time for an image, and the bytes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began, used = time.perf_counter(), time.process_time()
    packed = read_dataset(upload, Options(form="jpeg"), UploadLimits(output=folder, inflated_bytes=2**40))
    packed.write(folder / "dataset.safetensors")
    count = sum(len(label) for _, label in packed.splits.values())
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    stored = sum(path.stat().st_size for path in folder.iterdir())
    return {
        "images": count,
        "milliseconds_an_image": round(1000 * seconds / count, 2),
        "cpu_milliseconds_an_image": round(1000 * cpu / count, 2),
        "upload_bytes": upload.stat().st_size,
        "stored_share": round(stored / upload.stat().st_size, 3),
    }


def _rate(batch: Callable[[int], Tensor], batches: int) -> float:
    """Images by second of CPU time of all threads."""
    batch(0)
    used = time.process_time()
    for number in range(1, batches + 1):
        batch(number)
    return BATCH * batches / (time.process_time() - used)


def our_loader(dataset: Path) -> Callable[[int], Tensor]:
    """Batches of random resized crops and flips, normalised, from the canonical form."""
    images = Images.load(dataset, "train", CONTRACT, "cpu")
    source = Dataset(Dataset.Parameters(augmentation="resized_crop"))
    context = SourceContext(
        None, CONTRACT, images.classes, images, BATCH, None, None, ("label",), 0, torch.device("cpu"), "classification"
    )
    source.build(context)
    steps = source.steps_per_epoch()
    return lambda number: source.batch(Position(number // steps, number % steps, number, 0.0), {}).image


def their_loader(folder: Path) -> Callable[[int], Tensor]:
    """The same from torchvision's ImageFolder and its usual transforms, in this process."""
    images = image_folder(folder)
    order = torch.randperm(len(images)).tolist()

    def batch(number: int) -> Tensor:
        places = (order[(number * BATCH + place) % len(order)] for place in range(BATCH))
        return torch.stack([images[place][0] for place in places])

    return batch


def image_folder(folder: Path) -> datasets.ImageFolder:
    """torchvision's ImageFolder with its usual transforms."""
    change = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    return datasets.ImageFolder(str(folder), change)


def extracted(upload: Path, folder: Path) -> Path:
    """The folder with the files of a zip, extracted once."""
    if not folder.exists():
        with zipfile.ZipFile(upload) as archive:
            archive.extractall(folder)
    return folder


def compare_loaders(dataset: Path, folder: Path, batches: int, rounds: int) -> dict[str, Any]:
    """Images by CPU second of both loaders in turn, and the median of the ratios."""
    ours, theirs = our_loader(dataset), their_loader(folder)
    pairs = [(_rate(ours, batches), _rate(theirs, batches)) for _ in range(rounds)]
    return {
        "ours": round(statistics.median(one for one, _ in pairs), 1),
        "imagefolder": round(statistics.median(other for _, other in pairs), 1),
        "ratio": round(statistics.median(one / other for one, other in pairs), 2),
    }


def repeated(dataset: Path, folder: Path, times: int) -> Path:
    """The same dataset with its photographs so many times in its tables, to see what their number costs; the shards are links."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with safe_open(dataset, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    each = {name: tensor for name, tensor in tensors.items() if name.startswith("train.")}
    many = {name: tensor.repeat(times, *([1] * (tensor.ndim - 1))) for name, tensor in each.items()}
    save_file({**tensors, **many}, folder / dataset.name, metadata)
    for shard in read_list(tensors[LIST]):
        (folder / shard.sha256).hardlink_to(dataset.parent / shard.sha256)
    return folder / dataset.name


def train(dataset: Path, folder: Path, steps: int = 4) -> dict[str, Any]:
    """The peak of the private memory of a whole job at 224 pixels, in bytes, and the time until its first step."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    network = networks.build("torchvision/resnet18", 10, CONTRACT, {})
    save_file(network.state_dict(), folder / "teacher.safetensors")
    given = {"channels": 3, "height": 224, "width": 224, "mean": list(MEAN), "std": list(STD)}
    teacher = {"network": "torchvision/resnet18", "options": {}, "classes": 10, "class_names": [f"other {number}" for number in range(10)], "input": given,
               "weights": "teacher.safetensors"}  # fmt: skip
    spec = {
        "task": "classification", "student": {"network": "torchvision/mobilenet_v3_small", "options": {}, "classes": 10}, "contract": "trust",
        "source": {"name": "dataset", "augmentation": "consistent"}, "procedure": {"name": "direct"},
        "objectives": [{"name": "kd", "weight": 1.0}], "training": {"steps": steps, "batch_size": BATCH},
        "exports": ["safetensors"], "evaluation": None,
    }  # fmt: skip
    job = job_file(spec, teacher, dataset, dataset) | {"evaluation": None}
    (folder / "job.json").write_text(json.dumps(job))
    return _watched(folder)


def _watched(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "worker.distillation", str(folder / "job.json")]
    began, peak, first = time.monotonic(), 0, None
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as child,
    ):
        over = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not over.wait(0.05):
                peak = max(peak, _private_bytes(child.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert child.stdout is not None
        last: dict[str, Any] = {}
        for line in child.stdout:
            last = json.loads(line)
            if last["event"] == "progress" and first is None:
                first = time.monotonic() - began
        over.set()
        watcher.join()
    return {
        "peak_private_bytes": peak,
        "seconds_to_first_progress": first and round(first, 1),
        "ended": last.get("event"),
    } | ({"message": last.get("message")} if last.get("event") == "error" else {})


def _private_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    from worker.distillation.data import decoding_threads, jpeg

    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "decoder": jpeg.decoder(),
        "threads": decoding_threads.usual(),
    }
