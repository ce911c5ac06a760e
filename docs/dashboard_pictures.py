"""Takes the pictures of docs/dashboard.md from a running service: `python -m docs.dashboard_pictures URL KEY`.

Each page is opened in a headless Chromium, in light and dark, at 1280 and 390 pixels, and the four become one sheet, `docs/dashboard/PAGE.png`.
Pages of one record show the newest that there is: a running or else a succeeded job, a teacher, a dataset, an experiment.
"""

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

FOLDER = Path(__file__).with_name("dashboard")
HEIGHT, GAP = 900, 12
WIDTHS = {1280: 720, 390: 293}
"""Widths of the browser's window, and their widths in a sheet."""
SCHEMES = ("light", "dark")
WAIT_MILLISECONDS = 1500
"""Time for curves and images that a page asks for once it is shown."""


def main() -> None:
    arguments = _arguments()
    FOLDER.mkdir(exist_ok=True)
    from playwright.sync_api import sync_playwright

    addresses = pages(arguments.url, arguments.key)
    addresses |= {"job": f"/jobs/{arguments.job}"} if arguments.job else {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        shots: dict[str, list[Image.Image]] = {name: [] for name in addresses}
        for width, shown in WIDTHS.items():
            for scheme in SCHEMES:
                window = {"width": width, "height": HEIGHT * width // shown}
                options: dict[str, Any] = {"viewport": window, "color_scheme": scheme}
                page = browser.new_page(**options)
                page.goto(f"{arguments.url}/sign-in")
                page.fill("#key", arguments.key)
                page.click("main button")
                page.wait_for_url(f"{arguments.url}/")
                for name, address in addresses.items():
                    page.goto(arguments.url + address)
                    page.wait_for_timeout(WAIT_MILLISECONDS)
                    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
                    shots[name].append(shot.resize((shown, HEIGHT), Image.Resampling.LANCZOS))
                page.context.close()
        browser.close()
    for name, each in shots.items():
        sheet(each).quantize(128).save(FOLDER / f"{name}.png", optimize=True)


def pages(url: str, key: str) -> dict[str, str]:
    """The address of every page that there is something to show on, by the name of its picture."""
    with httpx.Client(base_url=f"{url}/v1", headers={"Authorization": f"Bearer {key}"}) as client:

        def records(path: str, **filters: Any) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = client.get(path, params=filters).raise_for_status().json()["data"]
            return found

        jobs = records("/jobs", status="succeeded")
        running = records("/jobs", status="running") or jobs
        datasets, teachers = records("/datasets", status="ready"), records("/teachers", status="ready")
        experiments = records("/experiments")
    addresses = {"jobs": "/", "new": "/jobs/new", "uploads": "/uploads", "experiments": "/experiments", "keys": "/keys", "operator": "/operator"}  # fmt: skip
    addresses |= {"compare": "/compare?" + "&".join(f"job={job['id']}" for job in jobs[:6])} if len(jobs) > 1 else {}
    one = {"running": ("jobs", running), "job": ("jobs", jobs), "dataset": ("uploads", datasets), "teacher": ("uploads", teachers), "experiment": ("experiments", experiments)}  # fmt: skip
    return addresses | {name: f"/{path}/{found[0]['id']}" for name, (path, found) in one.items() if found}


def sheet(shots: list[Image.Image]) -> Image.Image:
    """The shots side by side on grey."""
    whole = Image.new("RGB", (sum(shot.width + GAP for shot in shots) - GAP, HEIGHT), (128, 128, 128))
    left = 0
    for shot in shots:
        whole.paste(shot, (left, 0))
        left += shot.width + GAP
    return whole


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m docs.dashboard_pictures", description=__doc__.splitlines()[0])
    parser.add_argument("url", help="address of the service, without a slash at the end")
    parser.add_argument("key", help="a key with all scopes")
    parser.add_argument("--job", help="id of the succeeded job to show, instead of the newest")
    return parser.parse_args()


if __name__ == "__main__":
    main()
