"""The dashboard in a real browser: Chromium without a screen, driven by Playwright."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.records import Job, Metric, Preview
from tests.api.dashboard.tabs import FOLDER, Watched, until
from tests.api.dashboard.test_job_parts import logged
from tests.api.dashboard.test_pages import PIXEL, finished, summary
from tests.api.dashboard.test_upload_pages import dataset
from tests.api.service import Service, User

AXE = FOLDER / "assets" / "node_modules" / "axe-core" / "axe.min.js"


def points_of(page: Any) -> int:
    """Number of points of the longest curve that is drawn."""
    return int(page.get_attribute("#curves", "data-points") or 0)


def grown(page: Any) -> Callable[[], bool]:
    """A condition: the curves have more points than now."""
    now = points_of(page)
    return lambda: points_of(page) > now


def test_a_running_job_is_watched_and_cancelled(tab: Watched, owner: User) -> None:
    job = owner.job("running", name="watched", progress={"fraction": 0.1, "step": 1, "steps": 10})
    owner.metrics(job, "loss", [3.0, 2.0])
    owner.blob(Preview, job, "samples-00000001.png", PIXEL, step=1, content_type="image/png")
    page = tab.page
    page.goto(f"{tab.url}/")
    page.click("text=watched")
    page.wait_for_selector(".uplot")
    until(lambda: points_of(page) == 2, "the curve is not drawn")
    more = grown(page)
    with owner.service.rows() as session:
        session.add_all(Metric(job_id=job, name="loss", step=step, value=1 / step, attempt=1) for step in (3, 4))
    owner.blob(Preview, job, "samples-00000004.png", PIXEL, step=4, content_type="image/png")
    owner.events(job, 1, "preview", {"name": "samples-00000004.png"})
    owner.events(job, 1, "progress", {"fraction": 0.4})
    owner.change(job, progress={"fraction": 0.4, "step": 4, "steps": 10})
    until(more, "the curve does not grow")
    page.wait_for_selector("text=step 4 of 10")
    page.wait_for_selector('img[src$="samples-00000004.png"]')
    page.wait_for_selector(".slider input", state="visible")
    page.locator(".slider input").fill("0")
    page.wait_for_selector('img[src$="samples-00000001.png"]')
    page.click("text=Cancel")
    page.wait_for_selector("text=cancel requested")
    with owner.service.rows() as session:
        assert session.get_one(Job, job).cancel_requested_at is not None


def test_the_form_checks_while_one_types(tab: Watched, owner: User) -> None:
    teacher = owner.teacher(name="the teacher")
    page = tab.page
    page.goto(f"{tab.url}/jobs/new?template=kd")
    page.select_option("#f-teacher", teacher)
    page.select_option("#f-objectives-1-name", "dkd")
    page.wait_for_selector('input[name="/objectives/1/alpha"]')
    page.fill("#f-student-width", "7")
    page.wait_for_selector('#f-student-width[aria-invalid="true"]')
    assert "must be" in page.inner_text(".field:has(#f-student-width) .error")


def test_methods_are_compared_by_the_form(tab: Watched, owner: User) -> None:
    teacher, images = owner.teacher(name="the teacher"), dataset(owner)
    page = tab.page
    page.goto(f"{tab.url}/experiments/new")
    page.select_option("#e-teacher", teacher)
    page.select_option("#e-dataset", images)
    page.fill("#e-seeds", "2")
    page.uncheck('input[name="method"][value="DIST"]')
    page.click("text=Compare the methods")
    page.wait_for_selector("text=6 queued")


@pytest.mark.slow
def test_no_page_has_a_serious_violation(chromium: Any, embedded: Service, owner: User) -> None:
    """axe-core, on every page, light and dark, wide and narrow."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: make setup")
    script = AXE.read_text()
    teacher = owner.teacher()
    running = owner.job(
        "running", progress={"fraction": 0.1, "step": 1, "steps": 10}, labels={"a": "b"}, phases={"distilling": {}}
    )
    owner.metrics(running, "loss", [3.0, 2.0])
    owner.blob(Preview, running, "samples-00000001.png", PIXEL, step=1, content_type="image/png")
    owner.blob(Preview, running, "samples-00000002.png", PIXEL, step=2, content_type="image/png")
    done = [finished(owner, summary(bytes=size), teacher_id=teacher) for size in (100, 900)]
    failed = owner.job("failed", error={"code": "out_of_memory", "message": "no memory", "hint": "less"})
    base = {"teacher": teacher, "student": {"network": "lenet5_half"}, "source": {"name": "dafl"}}
    made = owner.http.post("/experiments", json={"name": "e", "base": base, "grid": {"training.seed": [0, 1]}}).json()
    images, logged_job = dataset(owner), logged(owner, b"a line\n" * 50, ended=True)
    rejected = owner.dataset("rejected", problem={"code": "no_images", "message": "no image"})
    paths = [
        "/", "/sign-in", f"/jobs/{running}", f"/jobs/{done[0]}", f"/jobs/{failed}", "/jobs/new?template=kd", "/uploads", f"/uploads/{teacher}",
        f"/uploads/{rejected}", f"/uploads/{images}", f"/jobs/{logged_job}", "/experiments", f"/experiments/{made['id']}", "/experiments/new", "/compare", f"/compare?job={done[0]}&job={done[1]}",
        "/keys", "/operator", "/jobs/job_x",
    ]  # fmt: skip
    found: list[str] = []
    for scheme, width in (("light", 1280), ("dark", 390)):
        watched = Watched(
            chromium, embedded.url, color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True
        )
        watched.sign_in(owner.key)
        for path in paths:
            watched.page.goto(f"{embedded.url}{path}")
            if path == f"/jobs/{logged_job}":
                watched.page.click("text=Log of attempt 1")
                watched.page.wait_for_selector(".log pre")
            watched.page.evaluate(script)
            results = watched.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            found += [
                f"{path} {scheme} {width}: {one['id']}: {one['nodes'][0]['html'][:200]} {one['nodes'][0]['failureSummary']}"
                for one in results["violations"]
                if one["impact"] in ("serious", "critical")
            ]
            wide = watched.page.evaluate("document.documentElement.scrollWidth")
            found += [f"{path} {scheme} {width}: the page is {wide} pixels wide"] if wide > width else []
        watched.problems = [problem for problem in watched.problems if "404" not in problem]
        watched.close()
    assert found == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_an_upload_to_a_downloaded_student(chromium: Any, tmp_path: Path) -> None:
    """The whole way, on a real service: sign in by the link, send a teacher, distil, watch, compare, download, cancel."""
    from docs.demo.service import service
    from docs.demo.teacher import contract, digits, train, write

    data = digits()
    reads = contract(data)
    write(
        train(data, reads, epochs=2) if "epochs" in train.__code__.co_varnames else train(data, reads), data, tmp_path
    )
    folder = tmp_path / "service"
    with service(folder):
        until(lambda: "works once" in (folder / "service.log").read_text(), "the service prints no link")
        link = re.search(r"(http://\S+)/sign-in\?token=\S+", (folder / "service.log").read_text())
        assert link
        watched = Watched(chromium, link[1], accept_downloads=True)
        page = watched.page
        page.goto(link[0])
        page.click("main button")
        page.wait_for_url(f"{watched.url}/")
        page.goto(f"{watched.url}/uploads")
        form = page.locator('form[data-create="/uploads/teachers"]')
        form.locator("input[type=file]").set_input_files(tmp_path / "teacher.safetensors")
        form.locator("#network").select_option("lenet5")
        for name, text in (
            ("input", "1x32x32"),
            ("mean", str(reads.mean[0])),
            ("std", str(reads.std[0])),
            ("classes", "10"),
        ):
            form.locator(f"#{name}").fill(text)
        form.locator("text=Send").last.click()
        page.wait_for_selector(".status.ready")
        jobs = []
        for steps in ("150", "400"):
            page.goto(f"{watched.url}/uploads")
            page.click("section >> text=teacher.safetensors")
            page.click("text=Distil it")
            page.select_option("#f-student-network", "lenet5_half")
            page.fill("#f-name", f"{steps} steps")
            page.locator("summary", has_text="Length, optimiser").click()
            page.fill("#f-training-steps", steps)
            page.click("text=Submit the job")
            page.wait_for_selector("#status")
            jobs.append(page.url)
            if steps == "150":
                page.wait_for_selector(".uplot")
                until(grown(page), "the curve does not grow")
                page.wait_for_selector(".series img")
                page.wait_for_selector(".status.succeeded")
                page.wait_for_selector("text=Student beside teacher")
                with page.expect_download() as download:
                    page.click("text=student.onnx")
                assert Path(download.value.path()).stat().st_size > 10_000
        page.click("text=Cancel")
        page.wait_for_selector(".status.cancelled")
        page.goto(f"{watched.url}/")
        for box in page.locator("#jobs input").all():
            box.check()
        page.click("text=Compare the chosen jobs")
        page.wait_for_selector("#overlay .uplot")
        assert "/training/steps" in page.inner_text("main")
        watched.close()
