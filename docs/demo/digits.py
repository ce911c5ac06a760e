"""The demo: a teacher of handwritten digits, distilled with its data and without, through the service. Run by `make demo`.

It uses the service as any user does: over HTTP, with this repository's client. `KEEP=1` leaves the service running.
"""

import os
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from distillery_client import Client
from distillery_client.errors import JobEnded
from distillery_client.progress import follow, transfer
from docs.demo.measure import Measured, measure, predictions
from docs.demo.service import service
from docs.demo.teacher import Digits, contract, digits, normalised, train, write
from models.settings import Settings
from models.sign_in_link import make_link
from worker.distillation.export import onnx
from worker.distillation.export.card import Card

NAMES = [str(digit) for digit in range(10)]
STUDENT = {"network": "lenet5_half"}
WITH_DATA: dict[str, Any] = {
    "name": "half with data",
    "student": STUDENT,
    "source": {"name": "dataset", "augmentation": "shift", "padding": 2},
    "objectives": [
        {"name": "cross_entropy", "weight": 0.1},
        {"name": "kd", "weight": 0.9, "temperature": 4.0},
        {"name": "nst", "weight": 10.0},
    ],
    "training": {"epochs": 40, "batch_size": 64, "optimizer": "adam", "learning_rate": 4e-3},
}
WITHOUT_DATA: dict[str, Any] = {
    "name": "half without data",
    "student": STUDENT,
    "source": {"name": "dafl"},
    "training": {"steps": 1200},
}

console = Console()


def main() -> None:
    """Train a teacher, upload it, distil it twice, and print the results."""
    Path(".distillery").mkdir(exist_ok=True)
    folder, keep = Path(tempfile.mkdtemp(prefix="demo-", dir=".distillery")), bool(os.environ.get("KEEP"))
    data = digits()
    files = make_teacher(data, folder)
    with service(folder / "service", keep) as process, Client(data=folder / "service") as client:
        console.print(f"The service is running at {client.url}; its log is {folder / 'service' / 'service.log'}.")
        show_link(client, folder / "service")
        teacher, dataset = upload(client, data, files)
        jobs = {
            "with data": distil(client, WITH_DATA | {"teacher": teacher["id"], "dataset": dataset["id"]}),
            "without data": distil(client, WITHOUT_DATA | {"teacher": teacher["id"]}),
        }
        folders = {name: download(client, job["id"], folder / name.replace(" ", "-")) for name, job in jobs.items()}
        report(data, files, folders)
        show_curl(client, teacher["id"], jobs["without data"]["id"], folder)
        if keep:
            console.print(f"\nThe service is still running at {client.url}. To stop it: [bold]kill {process}[/].")
            show_link(client, folder / "service")


def show_link(client: Client, data: Path) -> None:
    """Print a link to the dashboard that works once."""
    link = make_link(Settings(data=data), client.url)
    console.print(f"The dashboard, a link that works once: {link}", soft_wrap=True, highlight=False)


def make_teacher(data: Digits, folder: Path) -> Path:
    """Train the teacher and write `teacher.safetensors`, `teacher.onnx` and `digits.npz`; returns their folder."""
    torch.set_num_threads(1)  # more threads do not speed up such a small network
    reads = contract(data)
    with console.status("Training a LeNet-5 on 1,437 handwritten digits …"):
        network = train(data, reads)
    write(network, data, folder)
    onnx.write(
        network,
        Card("lenet5", {}, tuple(NAMES), reads, task="classification", output="logits"),
        folder / "teacher.onnx",
    )
    return folder


def upload(client: Client, data: Digits, files: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Upload the teacher and the dataset; returns both records once they are ready."""
    with transfer(console, "teacher.safetensors") as moved:
        spec = {"network": "lenet5", "classes": 10, "class_names": NAMES, "input": asdict(contract(data))}
        teacher = client.teachers.send(files / "teacher.safetensors", moved, **spec)
    with transfer(console, "digits.npz") as moved:
        dataset = client.datasets.send(files / "digits.npz", moved)
    return teacher, dataset


def distil(client: Client, spec: dict[str, Any]) -> dict[str, Any]:
    """Submit a job and follow it to its end.

    Raises:
        JobEnded: it did not succeed.
    """
    console.print(f"\n[bold]{spec['name']}[/]")
    job = follow(client, client.jobs.submit(spec)["id"], console)
    if job["status"] != "succeeded":
        raise JobEnded(job)
    return job


def download(client: Client, job: str, folder: Path) -> Path:
    """Download a job's artifacts and previews into a folder."""
    folder.mkdir()
    for artifact in client.artifacts.list(job):
        client.artifacts.download(job, artifact["name"], folder)
    for preview in client.previews.list(job):
        client.previews.download(job, preview["name"], folder)
    return folder


def report(data: Digits, files: Path, folders: dict[str, Path]) -> None:
    """Run the three ONNX files on the test digits, and print a table of their metrics."""
    images = normalised(data.x_test, contract(data)).numpy()
    taught = predictions(files / "teacher.onnx", images)
    stems = {"teacher": files / "teacher"} | {name: folder / "student" for name, folder in folders.items()}
    table = Table(title=f"{len(images)} test digits, ONNX files on one thread")
    for heading in ("", "accuracy", "agreement", "parameters", "bytes", "ms per image"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, stem in stems.items():
        measured = measure(stem.with_suffix(".onnx"), stem.with_suffix(".safetensors"), images, data.y_test, taught)
        table.add_row(name, *cells(measured))
    console.print()
    console.print(table)
    for name, folder in folders.items():
        made = sorted(folder.glob("samples-*.png"))
        images_made = f" Images from the end of its training: {made[-1]}." if made else ""
        console.print(f"The student {name} is in {folder}.{images_made}", soft_wrap=True, highlight=False)


def cells(measured: Measured) -> tuple[str, ...]:
    """Cells of a row of the table."""
    return (
        f"{measured.accuracy:.1%}",
        f"{measured.agreement:.1%}",
        f"{measured.parameters:,}",
        f"{measured.bytes:,}",
        f"{measured.latency_ms:.3f}",
    )


def show_curl(client: Client, teacher: str, job: str, folder: Path) -> None:
    """Print the same calls for curl, for this service while it is running (`make demo KEEP=1`)."""
    body = f'{{"teacher": "{teacher}", "student": {{"network": "lenet5_half"}}, "training": {{"steps": 1200}}}}'
    lines = f"""
The same with curl (while the service is running, with KEEP=1):

  URL={client.url}/v1 KEY=$(cat {folder}/service/key)
  curl -H "Authorization: Bearer $KEY" $URL/jobs -H 'Content-Type: application/json' -d '{body}'
  curl -H "Authorization: Bearer $KEY" $URL/jobs/{job}
  curl -H "Authorization: Bearer $KEY" -OJ $URL/jobs/{job}/artifacts/student.onnx"""
    console.print(lines, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # stops the service too
    main()
