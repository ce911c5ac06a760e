"""The operator's command for pretrained weights: `distillery-weights`, or `python -m worker.weights_command`."""

import argparse
import hashlib
import re
import shutil
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.error import URLError

from models.pretrained.weights_folder import COMMAND, SUFFIX, files_of, find, index, places_of
from models.settings import settings

TORCHVISION = "https://download.pytorch.org/models/{file}"
TIMM = "https://huggingface.co/timm/{name}/resolve/main/model.safetensors"
DIGEST = re.compile(r"-([0-9a-f]{8})\.pth$")
"""What torchvision's file names end with: the first digits of the SHA-256."""
SECONDS = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Pretrained weights of torchvision and timm.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what is in the folder")
    files = commands.add_parser("files", help="the official files of a network, and where to put them")
    files.add_argument("network", help="such as torchvision/resnet18 or timm/resnet18")
    download = commands.add_parser("download", help="fetch the first official file of a network")
    download.add_argument("network", help="such as torchvision/resnet18 or timm/resnet18.a1_in1k")
    download.add_argument("--url", help="address of the file on a mirror, instead of the library's own")
    given = parser.parse_args(arguments)
    folder = settings().weights_folder.absolute()
    try:
        if given.command == "list":
            lines = _listed(folder)
        elif given.command == "files":
            lines = _explained(folder, given.network)
        else:
            lines = _downloaded(folder, given.network, given.url)
        for line in lines:
            print(line)
    except _Refused as refused:
        print(f"{COMMAND}: {refused}", file=sys.stderr)
        return 1
    return 0


class _Refused(Exception):
    """The command cannot do what was asked; the message is a sentence."""


def _listed(folder: Path) -> Iterator[str]:
    """The folder, each network's file in it, and files that no network has."""
    yield f"Folder: {folder}" + ("" if folder.is_dir() else " (does not exist)")
    official = {place for files in index().values() for file in files for place in places_of(file)}
    present = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    for network in index():
        found = find(folder, network)
        if found is not None:
            yield f"{network}: {found.path.relative_to(folder)} ({found.path.stat().st_size / 1e6:.1f} MB)"
    for place in present.keys() - official:
        yield f"not used: {place} is not an official name; `{COMMAND} files NETWORK` shows those"


def _explained(folder: Path, network: str) -> Iterator[str]:
    found = find(folder, network)
    for file in _official(network):
        state = "is here" if found is not None and found.name == file else "absent"
        yield f"{file} ({state}): put it at {folder / file}, or download it from {_address(file)}"


def _downloaded(folder: Path, network: str, url: str | None) -> Iterator[str]:
    file = _official(network)[0]
    target, partial = folder / file, folder / f".{file}.partial"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(url or _address(file), timeout=SECONDS) as answer, partial.open("wb") as out:
            shutil.copyfileobj(answer, out)
        _check(partial, file)
        partial.replace(target)
    except (URLError, OSError) as error:
        words = f"{url or _address(file)} could not be fetched: {error}"
        raise _Refused(f"{words}. Fetch it elsewhere, and put it at {target}") from error
    finally:
        partial.unlink(missing_ok=True)
    yield f"{network}: {target}"


def _official(network: str) -> tuple[str, ...]:
    files = files_of(network)
    if not files:
        words = f"there are no official weights of {network!r}"
        raise _Refused(f"{words}; names are like torchvision/resnet18, timm/resnet18 and timm/resnet18.a1_in1k")
    return files


def _address(file: str) -> str:
    return TIMM.format(name=file.removesuffix(SUFFIX)) if file.endswith(SUFFIX) else TORCHVISION.format(file=file)


def _check(path: Path, file: str) -> None:
    """Refuse bytes that are not those of the file's name."""
    expected = DIGEST.search(file)
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if expected is not None and not digest.startswith(expected[1]):
        raise _Refused(f"the download is not {file}: its SHA-256 begins with {digest[:8]}")


if __name__ == "__main__":
    sys.exit(main())
