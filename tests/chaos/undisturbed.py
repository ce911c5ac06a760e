"""The students of undisturbed runs: the bare engine, once for every variant."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from models.storage.blobs import Storage
from tests.chaos.fleet import ROOT

RUN_SECONDS = 300
AT_ONCE = 2


def twins(
    resolved: Mapping[str, dict[str, Any]], teacher: Mapping[str, Any], storage: Storage, blobs: Mapping[str, str],
    folder: Path,
) -> dict[str, str]:  # fmt: skip
    """SHA-256 of the students by variant.

    Args:
        resolved: the specs with every default, by variant.
        teacher: as the API shows it.
        blobs: storage keys of the canonical `teacher` and `dataset`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, key in blobs.items():
        storage.download(key, folder / f"{name}.safetensors")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        students = pool.map(lambda item: _run(*item, teacher, folder), resolved.items())
        return dict(zip(resolved, students, strict=True))


def _run(variant: str, spec: dict[str, Any], teacher: Mapping[str, Any], folder: Path) -> str:
    own = folder / variant.replace(" ", "-").replace(",", "")
    for name in ("inputs", "output", "tmp"):
        (own / name).mkdir(parents=True, exist_ok=True)
    dataset = "../dataset.safetensors" if spec["dataset"] else None
    described = {name: teacher[name] for name in ("network", "options", "classes", "class_names", "input")}
    described["weights"] = "../teacher.safetensors"
    content = {
        "kind": "distill", "job": "undisturbed", "attempt": 1, "spec": spec, "teacher": described, "dataset": dataset,
        "evaluation": dataset, "device": "cpu", "threads": 1, "checkpoint_seconds": 3600,
    }  # fmt: skip
    (own / "job.json").write_text(json.dumps(content))
    heard, spoken = os.pipe()  # an input that stays open and silent
    try:
        done = subprocess.run(
            [sys.executable, "-m", "worker.distillation", str(own / "job.json")],
            cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdin=heard, capture_output=True, timeout=RUN_SECONDS,
        )  # fmt: skip
    finally:
        os.close(heard)
        os.close(spoken)
    student = own / "output" / "student.safetensors"
    if done.returncode or not student.exists():
        raise RuntimeError(f"the undisturbed run of {variant} failed: {done.stdout[-500:]!r} {done.stderr[-500:]!r}")
    return hashlib.sha256(student.read_bytes()).hexdigest()
