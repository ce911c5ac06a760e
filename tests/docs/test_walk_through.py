"""The shell commands of the README work as printed."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from docs.demo.service import service

ROOT = Path(__file__).parents[2]


def script(data: Path) -> str:
    """The README's shell commands with another address, another folder and fewer steps."""
    (printed,) = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert "http://127.0.0.1:8000/v1" in printed and '"steps": 1200' in printed
    url = json.loads((data / "service.json").read_text())["url"]
    lines = printed.replace("http://127.0.0.1:8000", url).replace(".distillery", str(data))
    return "set -euo pipefail\n" + lines.replace('"steps": 1200', '"steps": 8')


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.skipif(not (ROOT / ".venv/bin/python").exists(), reason="the walk-through uses the .venv of make setup")
def test_the_commands_of_the_readme_work_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DISTILL_ENGINE_THREADS", "1")
    with service(tmp_path):
        run = subprocess.run(
            ["bash", "-c", script(tmp_path)], capture_output=True, text=True, env=os.environ, timeout=280, check=False
        )
    assert run.returncode == 0, run.stderr + run.stdout
    assert '"status":"succeeded"' in run.stdout.replace(" ", "")
    assert (tmp_path / "files" / "student.onnx").stat().st_size > 10_000
    assert json.loads((tmp_path / "files" / "report.json").read_text())
