"""The service that is attacked: an API, a worker that inspects and one that distils, with short patience for slow clients."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from models.database import make_engine
from models.settings import Settings
from models.storage.opening import open_storage
from tests.api.service import MANY, Service, User
from tests.integration.whole import Whole, eventually, write_inputs

CLIENT_SECONDS = 2.0
PATIENT = {"lease_seconds": "30", "beat_seconds": "3"}
"""The leases of the tests are too short for a machine that an attack keeps busy: a lost one would hide what was lost."""


@dataclass
class Target:
    """A running service. `inputs` holds a good teacher and good images."""

    whole: Whole
    service: Service
    inputs: Path

    @property
    def url(self) -> str:
        return self.service.url

    def user(self, **values: object) -> User:
        """A tenant with a new key."""
        return self.service.user(**values)

    def send_good_upload(self) -> float:
        """Send good images as a new tenant and wait until they are ready; returns the seconds. Raises if they are not."""
        import time

        began = time.monotonic()
        with self.user() as user:
            record = user.http.post("/datasets", json={"name": "good"}).raise_for_status().json()
            content = (self.inputs / "images.npz").read_bytes()
            user.http.put(record["upload"], content=content).raise_for_status()
            shown = eventually(lambda: _ended(user, "datasets", record["id"]), "a good upload is inspected")
            assert shown["status"] == "ready", shown
        return time.monotonic() - began

    def check_logs(self) -> list[str]:
        """Lines of the log that no request and no file may cause: unhandled exceptions."""
        words = ('"request_failed"', "request_failed ", "Traceback (most recent", "Exception in ASGI", "Task exception")
        lines = self.whole.log.read_text(errors="replace").splitlines()
        return [line[:500] for line in lines if any(word in line for word in words)]

    def processes(self) -> list[psutil.Process]:
        """All processes of the service."""
        found = []
        for process in self.whole.processes.values():
            try:
                one = psutil.Process(process.pid)
                found += [one, *one.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        return found


def _ended(user: User, resource: str, identifier: str) -> dict[str, object] | None:
    shown = user.http.get(f"/{resource}/{identifier}", headers={"Prefer": "wait=5"}).raise_for_status().json()
    return None if shown["status"] in ("waiting", "inspecting") else dict(shown)


@contextmanager
def started(folder: Path, sandbox: str = "off", **more: object) -> Iterator[Target]:
    """A service in this folder. Without the sandbox, a payload that is run leaves a trace; with it, the sandbox would hide
    that it was run."""
    settings = {"client_seconds": CLIENT_SECONDS, "sandbox": sandbox, "queued_jobs": 100_000} | MANY | PATIENT | more
    whole = Whole(folder / "data", **{name: str(value) for name, value in settings.items()})
    with whole:
        known = Settings(_env_file=None, data=whole.data, port=int(whole.url.rpartition(":")[2]), **MANY)
        engine = make_engine(known.database)
        service = Service(
            whole.url, whole.processes["api"], engine, open_storage(known), whole.data, whole.data / "service.log"
        )
        target = Target(whole, service, write_inputs(folder / "inputs"))
        try:
            target.send_good_upload()
            yield target
        finally:
            engine.dispose()
