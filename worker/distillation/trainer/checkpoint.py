"""Checkpoints of a run: a small manifest that lists immutable parts, each named by its SHA-256.

A part is one safetensors file: the tensors of a nested state, and its skeleton (dicts, lists, tuples, numbers,
strings) as JSON in the file's metadata. Nothing is pickled. A part that has not changed since the last checkpoint has
the same name, so it is written and uploaded only once.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from worker.distillation.data.transfers import copied_to_cpu
from worker.distillation.distributed.ranks import ALONE, Ranks
from worker.distillation.errors import CheckpointError

Manifest = dict[str, Any]
"""`{"step": int, "done": int, "format": int, "parts": {name: {"sha256": str, "size": int}}}`; `done` increases with every
step, including generator steps."""
FORMAT = 3
"""Version of the parts' content. Increase it if older checkpoints can no longer be resumed; their jobs then start again."""


def snapshot(state: Any) -> Any:
    """A copy of a nested state on the CPU, which later training does not change."""
    return copied_to_cpu(state)


def encode(state: Any) -> bytes:
    """Encode a nested state of dicts, lists, tuples, tensors, numbers, strings and None as a safetensors file.

    Raises:
        TypeError: the state contains an object of another type.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(_skeleton(state, tensors))
    return save(tensors, metadata={"skeleton": skeleton})


def decode(path: Path) -> Any:
    """Read a state that `encode` wrote."""
    with safe_open(path, framework="pt") as file:
        skeleton = json.loads(file.metadata()["skeleton"])
        return _fill(skeleton, file.get_tensor)


def _skeleton(state: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(state, Tensor):
        name = str(len(tensors))
        tensors[name] = state.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(state, Mapping):
        return {"dict": [[_skeleton(key, tensors), _skeleton(value, tensors)] for key, value in state.items()]}
    if isinstance(state, tuple):
        return {"tuple": [_skeleton(item, tensors) for item in state]}
    if isinstance(state, list):
        return [_skeleton(item, tensors) for item in state]
    if state is None or isinstance(state, (bool, int, float, str)):
        return state
    raise TypeError(f"a checkpoint cannot contain an object of type {type(state).__name__}")


def _fill(skeleton: Any, tensor: Callable[[str], Tensor]) -> Any:
    if isinstance(skeleton, list):
        return [_fill(item, tensor) for item in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    ((kind, content),) = skeleton.items()
    if kind == "tensor":
        return tensor(content)
    if kind == "tuple":
        return tuple(_fill(item, tensor) for item in content)
    return {_fill(key, tensor): _fill(value, tensor) for key, value in content}


class Checkpoints:
    """Checkpoints of one run in one folder. `save` takes a snapshot, returns, and writes it in a thread."""

    def __init__(self, folder: Path, saved: Callable[[Manifest], None] = lambda manifest: None, ranks: Ranks = ALONE):
        self.folder = folder
        self._saved = saved
        self._ranks = ranks
        self._frozen: dict[str, dict[str, Any]] = {}
        self._freezing = threading.Lock()  # the writer thread must not delete a part that is being frozen
        self._writer: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._recent: list[Manifest] = []
        folder.mkdir(parents=True, exist_ok=True)

    def freeze(self, name: str, state: Any) -> None:
        """Write a part that never changes; every later checkpoint contains it. With several ranks, rank 0's state is written."""
        content = encode(state) if self._ranks.leads else b""
        with self._freezing:
            entry = self._write(content) if self._ranks.leads else None
            self._frozen[name] = self._ranks.broadcast(entry)

    def thaw(self, name: str) -> Any:
        """Read a part that `freeze` wrote, in this process or an earlier one."""
        return decode(self._verified(self._frozen[name]))

    def drop(self, name: str) -> None:
        """Leave a frozen part out of later checkpoints, if there is one of this name."""
        with self._freezing:
            self._frozen.pop(name, None)

    def frozen(self) -> tuple[str, ...]:
        return tuple(self._frozen)

    def save(self, step: int, parts: Mapping[str, Any], wait: bool = False, done: int | None = None) -> None:
        """Take a snapshot of `parts` and write it with all frozen parts; with `wait`, return when it is on disk.

        Raises:
            CheckpointError: this checkpoint or the previous one could not be written.
        """
        self.flush()
        copies = snapshot(dict(parts))
        frozen = dict(self._frozen)
        head = {"step": step, "done": step if done is None else done, "format": FORMAT}
        self._writer = threading.Thread(target=self._write_all, args=(head, copies, frozen))
        self._writer.start()
        if wait:
            self.flush()

    def flush(self) -> None:
        """Wait until the last checkpoint is on disk."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise CheckpointError(f"a checkpoint could not be written: {failure}") from failure

    def load(self, manifest: Manifest) -> dict[str, Any]:
        """All parts of a checkpoint, verified; frozen parts stay on disk until `thaw` reads them.

        Raises:
            CheckpointError: a part is missing or damaged, or another version of the engine wrote it.
        """
        if manifest.get("format", FORMAT) != FORMAT:
            message = (
                f"another version of the engine wrote the checkpoint: its format is {manifest['format']}, "
                f"and this engine reads format {FORMAT}"
            )
            raise CheckpointError(message)
        live = {}
        for name, entry in manifest["parts"].items():
            path = self._verified(entry)
            if entry.get("frozen"):
                self._frozen[name] = entry
            else:
                live[name] = decode(path)
        self._recent.append(manifest)
        return live

    def _write_all(self, head: Mapping[str, int], copies: Mapping[str, Any], frozen: Mapping[str, Any]) -> None:
        try:
            parts = {name: self._write(encode(state)) for name, state in copies.items()}
            parts |= {name: {**entry, "frozen": True} for name, entry in frozen.items()}
            manifest = {**head, "parts": parts}
            self._saved(manifest)
            self._prune(manifest)
        except Exception as failure:  # noqa: BLE001 - flush() raises it in the training thread
            self._failure = failure

    def _write(self, content: bytes) -> dict[str, Any]:
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.folder / sha256
        if not path.exists():
            temporary = path.with_suffix(f".{threading.get_ident()}.tmp")
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        return {"sha256": sha256, "size": len(content)}

    def _prune(self, manifest: Manifest) -> None:
        """Delete parts that none of the newest three manifests lists."""
        self._recent = [*self._recent, manifest][-3:]  # the worker may still be uploading an older checkpoint
        kept = {entry["sha256"] for recent in self._recent for entry in recent["parts"].values()}
        with self._freezing:
            kept |= {entry["sha256"] for entry in self._frozen.values()}
            for path in self.folder.iterdir():
                if len(path.name) == 64 and path.name not in kept:
                    path.unlink(missing_ok=True)

    def _verified(self, entry: Mapping[str, Any]) -> Path:
        path = self.folder / entry["sha256"]
        if not path.is_file():
            raise CheckpointError(f"the checkpoint part {entry['sha256']} is missing")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != entry["sha256"]:
            raise CheckpointError(f"the checkpoint part {entry['sha256']} is damaged: its SHA-256 differs")
        return path


def state_of(network: torch.nn.Module) -> dict[str, Tensor]:
    """A network's weights and buffers, copied to the CPU."""
    return dict(copied_to_cpu(network.state_dict()))
