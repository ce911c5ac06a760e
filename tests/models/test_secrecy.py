"""Processes hide their environment and memory from other processes of the same user."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READER = """
import sys
from worker.distillation.sandbox import kernel
kernel.drop_capabilities()  # root could read anything, and others can read nothing of root's
try:
    open(f"/proc/{sys.argv[1]}/environ", "rb").read(1)
except PermissionError:
    sys.exit(7)
"""
KEEPER = """
import sys
from worker.distillation.sandbox import kernel
kernel.drop_capabilities()
if sys.argv[1] == "hidden":
    from models.secrecy import hide_memory
    hide_memory()
print("ready", flush=True)
sys.stdin.read()
"""


def readable_by_others(process: int) -> bool:
    """Whether a process of the same user, without root's powers, reads another's environment; Linux only."""
    command = [sys.executable, "-c", READER, str(process)]
    code = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False).returncode
    assert code in (0, 7)
    return code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@pytest.mark.parametrize("how", ["hidden", "open"])
def test_memory_that_is_hidden_cannot_be_read_by_another_of_the_same_user(how: str) -> None:
    keeper = subprocess.Popen(
        [sys.executable, "-c", KEEPER, how], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with keeper:
        assert keeper.stdout and keeper.stdout.readline() == "ready\n"
        assert readable_by_others(keeper.pid) is (how == "open")
        keeper.communicate("")
