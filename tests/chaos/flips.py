"""Bits that flip in storage: in the parts of checkpoints, in canonical forms and in artifacts."""

import random
import signal
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import psutil
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from models.records import Artifact, Checkpoint, Dataset, Job, Teacher
from models.storage import keys
from models.storage.blobs import Storage
from models.storage.errors import StorageError
from tests.chaos.fleet import Fleet
from tests.chaos.history import History


class Flips:
    """Flips bits. `storage` and `engine` are reached past the outages of the campaign. `damaged` holds the uploads whose
    canonical forms stay damaged: a job that needs one of them may fail."""

    def __init__(
        self,
        engine: Engine,
        storage: Storage,
        http: httpx.Client,
        fleet: Fleet,
        history: History,
        shared: Sequence[str],
    ):
        self._engine, self._storage, self._http, self._fleet, self._history = engine, storage, http, fleet, history
        self._shared = set(shared)
        self.damaged: set[str] = set()
        self.refused = 0

    @property
    def kinds(self) -> dict[str, Callable[[float], str | None]]:
        """What flips, by the kind of the fault; each takes the fault's chance, and returns what it did, None if it found nothing."""
        return {"flip_part": self._part, "flip_canonical": self._canonical, "flip_artifact": self._artifact}

    def _rows(self, query: Any) -> list[Any]:
        with Session(self._engine) as session:
            return list(session.execute(query).all())

    def _flip(self, key: str, chance: float) -> bytes:
        """Change one bit of a blob; returns the bytes as they were."""
        data = b"".join(self._storage.get(key))
        dice, changed = random.Random(chance), bytearray(data)
        changed[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        self._storage.put(key, bytes(changed))
        return data

    def _guarded(self, act: Callable[[], str | None]) -> str | None:
        try:
            return act()
        except (SQLAlchemyError, StorageError, IndexError, ValueError):
            return None  # the row or its blob has just gone, or the database is stopped

    def _part(self, chance: float) -> str | None:
        """A part of a running job's newest checkpoint; then its engine is killed, so that the part is needed."""

        def act() -> str | None:
            query = select(Checkpoint).join(Job, Job.id == Checkpoint.job_id).where(Job.status == "running")
            with Session(self._engine) as session:
                found = session.scalars(query.order_by(Checkpoint.job_id, Checkpoint.step.desc())).all()
            newest = {checkpoint.job_id: checkpoint for checkpoint in reversed(found)}
            checkpoint = list(newest.values())[int(chance * len(newest))]
            parts = sorted(part["sha256"] for part in checkpoint.manifest["parts"].values())
            sha256 = parts[int(chance * 7 % 1 * len(parts))]
            self._flip(keys.checkpoint_part(checkpoint.job_id, sha256), chance)
            killed = self._kill_engine_of(checkpoint.job_id)
            return f"{sha256[:12]} of {checkpoint.job_id}" + (", and killed its engine" if killed else "")

        return self._guarded(act)

    def _kill_engine_of(self, job: str) -> bool:
        for member in self._fleet.of("distill"):
            for process in member.family():
                try:
                    if f"/{job}/" in process.cwd():
                        process.send_signal(signal.SIGKILL)
                        return True
                except psutil.Error:
                    continue
        return False

    def _canonical(self, chance: float) -> str | None:
        """The canonical form of an upload that one order has for itself; it stays damaged."""

        def act() -> str | None:
            found = [
                row for table in (Teacher, Dataset)
                for row in self._rows(select(table.id, table.blob_key).where(table.status == "ready"))
                if row.id not in self._shared | self.damaged
            ]  # fmt: skip
            chosen = found[int(chance * len(found))]
            self.damaged.add(chosen.id)
            self._flip(chosen.blob_key, chance)
            return f"the canonical form of {chosen.id}"

        return self._guarded(act)

    def _artifact(self, chance: float) -> str | None:
        """An artifact of a succeeded job, downloaded through the API, and repaired. Wrong bytes that are sent as if they
        were right are a violation."""

        def act() -> str | None:
            found = self._rows(select(Artifact.job_id, Artifact.name, Artifact.key, Artifact.sha256))
            chosen = found[int(chance * len(found))]
            data = self._flip(chosen.key, chance)
            try:
                for path in (f"jobs/{chosen.job_id}/artifacts/{chosen.name}", f"jobs/{chosen.job_id}/artifacts.zip"):
                    self._require_refusal(path)
            finally:
                self._storage.put(chosen.key, data)
            return f"{chosen.name} of {chosen.job_id}"

        return self._guarded(act)

    def _require_refusal(self, path: str) -> None:
        try:
            answer = self._http.get(path, follow_redirects=True)
        except httpx.HTTPError:
            self.refused += 1  # the answer ended early, or the API is being restarted
            return
        if answer.is_success:
            self._history.violation(f"{path} was sent in full although a bit of it had flipped")
        else:
            self.refused += 1
