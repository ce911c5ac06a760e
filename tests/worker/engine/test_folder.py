"""Attempts' folders: locked while their owner lives, swept when it has died."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.engine.folder import Folder, sweep_folders, work_folder

ROOT = Path(__file__).parents[3]


def test_a_folder_is_empty_at_first_and_removed_at_the_end(embedded: None) -> None:
    left = work_folder() / "job_1" / "1" / "inputs" / "old"
    left.parent.mkdir(parents=True)
    left.touch()
    with Folder("job_1", 1) as folder:
        assert (folder.path / "inputs").is_dir() and not left.exists()
        assert (folder.path / "inputs").stat().st_mode & 0o077 == 0
    assert list(work_folder().iterdir()) == []


def test_a_sweep_removes_only_folders_of_dead_owners(embedded: None) -> None:
    code = "import os; from worker.engine.folder import Folder; Folder('job_1', 1).__enter__(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 9
    assert (work_folder() / "job_1" / "1").is_dir()
    with Folder("job_1", 2) as living:
        assert sweep_folders() == 1
        assert living.path.is_dir() and not (work_folder() / "job_1" / "1").exists()
        assert sweep_folders() == 0


def test_a_folder_that_another_worker_removes_during_a_sweep_ends_no_sweep(
    embedded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    vanishing, scandir = work_folder() / "job_1", os.scandir
    vanishing.mkdir(parents=True)

    def removed_first(path: object) -> object:
        if str(path) == str(vanishing):
            vanishing.rmdir()
        return scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", removed_first)
    assert sweep_folders() == 0 and not vanishing.exists()


def test_only_regular_files_inside_the_folder_are_accepted(embedded: None, tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    with Folder("job_1", 1) as folder:
        (folder.path / "output" / "student").touch()
        (folder.path / "output" / "link").symlink_to(tmp_path / "secret")
        assert folder.inside("output/student").name == "student"
        for name in ("output/link", "../../../../secret", str(tmp_path / "secret"), "output", "output/none"):
            with pytest.raises(ValueError, match="not a file in its folder"):
                folder.inside(name)
