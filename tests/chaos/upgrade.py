"""An upgrade while jobs run: a migration, a new API beside old workers, then one worker after the other."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from models.database import now
from models.records import Attempt, Worker
from tests.chaos.fleet import ROOT, Fleet, Member
from tests.chaos.history import History
from tests.chaos.parts import Parts

T = TypeVar("T")
PACKAGES = ("api", "models", "worker", "migrations")
MOST = 2
BESIDE_SECONDS = 10.0
"""How long an old worker runs beside the new API and the new workers."""
MIGRATION = '''"""A migration of a later version, for a campaign.

Revision: {number}
Follows: {before}
"""

from alembic import op

revision, down_revision, branch_labels, depends_on = "{number}", "{before}", None, None


def upgrade() -> None:
    op.execute("ALTER TABLE jobs ADD COLUMN later_{number} INTEGER")
    op.execute("UPDATE jobs SET later_{number} = attempt")
    op.execute("CREATE INDEX ix_jobs_later_{number} ON jobs (later_{number})")


def downgrade() -> None:
    op.execute("DROP INDEX ix_jobs_later_{number}")
    op.execute("ALTER TABLE jobs DROP COLUMN later_{number}")
'''


class Upgrades:
    """Upgrades the whole fleet to a version that has one more migration."""

    def __init__(self, parts: Parts, fleet: Fleet, history: History, engine: Engine):
        self._parts, self._fleet, self._history, self._engine = parts, fleet, history, engine
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._before = max(path.stem.partition("_")[0] for path in (ROOT / "migrations" / "versions").glob("[0-9]*.py"))
        self.done = 0

    def upgrade(self, chance: float) -> str | None:
        """Begin an upgrade; None if one is being made, or if there were enough."""
        if self.done >= MOST or (self._thread is not None and self._thread.is_alive()):
            return None
        self.done += 1
        self._thread = threading.Thread(target=self._run, args=(chance,), name="upgrade", daemon=True)
        self._thread.start()
        return f"to a later version ({self.done})"

    def finish(self) -> None:
        """Wait for an upgrade that is being made."""
        if self._thread is not None:
            self._over.set()
            self._thread.join(180)
            if self._thread.is_alive():
                self._history.violation("an upgrade did not end")

    def _run(self, chance: float) -> None:
        tree = self._tree()
        with (
            self._parts.impaired()
        ):  # a process that starts while the schema changes ends with a sentence, and starts again
            self._migrate(tree)
            for member in self._fleet.members:
                member.tree = tree
        migrated_at = self._retried(self._clock)
        self._history.note("migrated", at=migrated_at)
        old = {
            kind: [member.process.pid for member in self._fleet.of(kind) if member.process]
            for kind in ("distill", "inspect")
        }
        for member in self._fleet.of("api"):
            self._fleet.drain(member, 0.0)
        workers = self._fleet.of("distill", "inspect")
        last = workers[int(chance * len(workers))] if workers else None
        for member in (one for one in workers if one is not last):
            self._replace(member)
        self._over.wait(BESIDE_SECONDS)
        if last is not None:
            self._replace(last)
        self._require_no_claim(migrated_at, [pid for pids in old.values() for pid in pids])

    def _replace(self, member: Member) -> None:
        began = member.started_at
        self._fleet.drain(member, 0.0)
        deadline = time.monotonic() + 60
        while member.started_at == began and time.monotonic() < deadline:
            time.sleep(0.1)

    def _tree(self) -> Path:
        """A copy of the code with one more migration."""
        tree = self._parts.folder / f"version-{self.done}"
        source = ROOT if self.done == 1 else self._parts.folder / f"version-{self.done - 1}"
        for package in PACKAGES:
            shutil.copytree(source / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
        number = f"{int(self._before) + 1:04d}"
        text = MIGRATION.format(number=number, before=self._before)
        (tree / "migrations" / "versions" / f"{number}_later.py").write_text(text)
        self._before = number
        return tree

    def _migrate(self, tree: Path) -> None:
        environment = self._parts.environment("api", 0)

        def once() -> None:
            done = subprocess.run(
                [sys.executable, "-m", "models.migrate"], cwd=tree, env=environment, capture_output=True, text=True, timeout=120
            )  # fmt: skip
            if done.returncode:
                raise OSError(done.stderr[-500:])

        self._retried(once)

    def _retried(self, act: Callable[[], T]) -> T:
        """The result of an act that fails while a part of the service is stopped."""
        deadline = time.monotonic() + 120
        while True:
            try:
                return act()
            except Exception as error:
                if time.monotonic() > deadline:
                    self._history.violation(f"the upgrade could not be made: {error}")
                    raise
                time.sleep(0.5)

    def _clock(self) -> float:
        with Session(self._engine) as session:
            return float(session.scalars(select(now())).one())

    def _require_no_claim(self, since: float, processes: list[int]) -> None:
        """An old worker claims nothing once the schema is newer than its code."""

        def claims() -> list[str]:
            query = select(Attempt.job_id, Worker.process).join(Worker, Worker.id == Attempt.worker_id)
            query = query.where(Worker.process.in_(processes), Attempt.started_at > since + 1)
            with Session(self._engine) as session:
                return [f"{row.job_id} by process {row.process}" for row in session.execute(query)]

        for claim in self._retried(claims):
            self._history.violation(f"an old worker claimed a job after the migration: {claim}")
