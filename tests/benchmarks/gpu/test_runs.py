"""The runs for a machine with a GPU: their results, the carried folder, and all four parts with tiny sizes on a CPU."""

import io
import json
import lzma
import os
import struct
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.transforms.functional import to_pil_image

from benchmarks.gpu import prepare
from benchmarks.gpu.images import PACK, photographs, write_cifar
from benchmarks.gpu.results import Clock, Runs

PARTS = ("device", "speed", "datafree", "tables")


def write_pack(folder, each=30, classes=10):
    """A pack of JPEG files whose brightness tells the class."""
    draw, files = torch.Generator().manual_seed(0), []
    for split in ("train", "test"):
        for number in range(each * classes):
            noise = torch.randint(0, 60, (3, 32, 32), generator=draw, dtype=torch.uint8)
            image = noise + 18 * (number % classes)
            content = io.BytesIO()
            to_pil_image(image.to(torch.uint8)).save(content, "JPEG")
            files.append((f"cifar/{split}/class{number % classes}/{number}.jpg", content.getvalue()))
    index = "\n".join(f"{path}\t{len(content)}" for path, content in files).encode()
    with lzma.open(folder / PACK, "wb") as pack:
        pack.write(struct.pack(">I", len(index)) + index + b"".join(content for _, content in files))
    return folder


def test_a_step_runs_once_and_its_error_is_a_result(tmp_path):
    runs, calls = Runs(tmp_path, Clock(1)), []

    def step(fails: bool = False):
        calls.append(fails)
        if fails:
            raise ValueError("no")
        return {"value": 1}

    assert runs.once("part", "one", 0, step)["value"] == 1
    assert runs.once("part", "two", 0, lambda: step(True)) is None and runs.failed() == 1
    again = Runs(tmp_path, Clock(1))
    assert again.once("part", "one", 0, step)["value"] == 1 and calls == [False, True]
    assert again.once("part", "two", 0, step)["value"] == 1 and again.failed() == 0


def test_a_step_that_does_not_fit_into_the_time_is_not_started(tmp_path):
    runs = Runs(tmp_path, Clock(0.01))
    assert runs.once("part", "long", 60, lambda: pytest.fail("it was started")) is None
    assert Runs(tmp_path, Clock(0.01)).rows == []


def test_results_of_an_earlier_run_go_on_elsewhere(tmp_path):
    first = Runs(tmp_path / "first", Clock(1))
    first.once("part", "one", 0, lambda: {"value": 1})
    (tmp_path / "first" / "part").mkdir()
    weights = {"weight": torch.randn(3, 2), "count": torch.tensor(7)}
    save_file(weights, tmp_path / "first" / "part" / "teacher.safetensors")
    prepare.take_along(tmp_path / "first", tmp_path / "carry" / "earlier")
    second = Runs(tmp_path / "second", Clock(1), tmp_path / "carry" / "earlier")
    assert second.found("part", "one")["value"] == 1
    carried = load_file(tmp_path / "second" / "part" / "teacher.safetensors")
    assert carried["weight"].dtype == torch.float16 and carried["count"] == 7
    torch.testing.assert_close(carried["weight"].float(), weights["weight"], rtol=1e-3, atol=1e-3)


def test_a_pack_becomes_a_canonical_dataset(tmp_path):
    train, test = write_cifar(write_pack(tmp_path) / PACK, tmp_path / "cifar", most=40)
    data = load_file(train)
    assert data["train.image"].shape == (40, 3, 32, 32) and load_file(test)["test.label"].shape == (40,)
    bright = [data["train.image"][data["train.label"] == name].float().mean() for name in range(10)]
    assert bright == sorted(bright)


def test_photographs_are_jpeg_files():
    (file,) = photographs(1, 96, 128)
    assert file[:2] == b"\xff\xd8"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_four_parts_run_with_tiny_sizes_on_a_cpu(tmp_path):
    (tmp_path / "carry").mkdir()
    write_pack(tmp_path / "carry")
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        *PARTS,
        "--tiny",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "out"),
    ]
    ran = subprocess.run(
        [*command, "--carry", str(tmp_path / "carry")], capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert [(row["name"], row["error"]) for row in rows if "error" in row] == []
    assert ran.returncode == 0, ran.stderr
    assert {row["part"] for row in rows} == set(PARTS)
