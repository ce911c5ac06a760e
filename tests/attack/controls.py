"""Controls: the payloads do leave a trace when something runs them, so that a campaign without traces means something."""

import subprocess
import sys
from pathlib import Path

from tests.attack.corpus.case import Canary
from tests.attack.corpus.pickles import CONTROLLED, forms, payloads
from tests.worker.distillation.uploads.hostile_pickles import pickled

LOADER = "import pickle, sys, pathlib\nfor path in sys.argv[1:]:\n  pickle.loads(pathlib.Path(path).read_bytes())"


class NoTrace(Exception):
    """A payload that was run has left no trace: the campaign could not see it."""


def require_traces(canary: Canary) -> None:
    """Run the payloads with Python's own unpickler, in a process of their own, and require their traces; then remove them.

    Raises:
        NoTrace: at least one payload has left none.
    """
    files = canary.folder.with_name("controls")
    files.mkdir(exist_ok=True)
    paths = []
    for name in CONTROLLED:
        path = files / name
        path.write_bytes(pickled(forms(payloads(canary, name)[name])["reduce"]))
        paths.append(str(path))
    subprocess.run([sys.executable, "-c", LOADER, *paths], check=True, timeout=60, cwd=files)
    missing = [name for name in CONTROLLED if name != "socket" and not Path(canary.mark(name)).exists()]
    if missing or not canary.connections:
        raise NoTrace(f"no trace of {missing or 'a connection'}: the control failed")
    canary.clear()
