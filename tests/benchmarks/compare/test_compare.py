"""The comparison: rows that the engine accepts, keys that depend on what matters, intervals by the formula."""

import argparse
import dataclasses
import json
import math
import random

import pytest
import torch

from benchmarks.compare import __main__ as compare
from benchmarks.compare import page as compare_page
from benchmarks.compare.plot import plot
from benchmarks.compare.protocols import MNIST, PROTOCOLS, Files, drawn, images
from benchmarks.compare.results import Difference, Measured, Store, accuracy_of, paired, read
from benchmarks.compare.rows import LISTS, NOT_COMPARED, Row, named
from benchmarks.compare.runs import find, measure, order
from worker.distillation import networks, registry
from worker.distillation.check import check
from worker.distillation.contract import read_contract
from worker.distillation.errors import SpecError
from worker.distillation.job import Job

ROWS = [(protocol, row) for protocol in PROTOCOLS.values() for row in LISTS[protocol.name]()]
REFUSED = {("mnist", name) for name in ("fsp", "fsp_then_plain", "fsp_then_kd", "overhaul")}
"""Rows that the engine refuses for LeNets; the page lists them with the engine's error."""


def files_of(protocol, folder, content=b"weights"):
    """Files with arbitrary content, for names and digests only."""
    folder.mkdir(exist_ok=True)
    paths = {name: folder / name for name in ("train", "whole", "test", "teacher_0", "teacher_1", "teacher_2")}
    for name, path in paths.items():
        path.write_bytes(name.encode() + content)
    teachers = tuple(paths[f"teacher_{number}"] for number in range(3))
    return Files(dict.fromkeys(protocol.seeds, paths["train"]), paths["whole"], paths["test"], teachers)


@pytest.mark.parametrize(("protocol", "row"), ROWS, ids=[f"{protocol.name}-{row.name}" for protocol, row in ROWS])
def test_the_engine_accepts_every_row(protocol, row, tmp_path):
    job = order(row, protocol.seeds[0], protocol, files_of(protocol, tmp_path)).job
    if (protocol.name, row.name) in REFUSED:
        with pytest.raises(SpecError):
            check(Job(job, tmp_path))
    else:
        check(Job(job, tmp_path))


def test_the_page_lists_methods_without_a_row():
    rows = [row for name in LISTS for row in LISTS[name]()]
    used = {each["name"] for row in rows for each in row.objectives} | {row.procedure["name"] for row in rows}
    known = {*registry.names("objectives"), *registry.names("procedures")}
    found = compare_page.without_row()
    assert found.keys() == known - used and all(found.values())
    assert not set(NOT_COMPARED) & used


@pytest.mark.parametrize("name", PROTOCOLS)
def test_row_names_are_unique_and_comparisons_refer_to_rows(name):
    rows = LISTS[name]()
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert {"plain", "kd"} <= set(names) and {row.over for row in rows if name == "mnist"} <= set(names)


def test_the_key_depends_on_files_spec_and_seed_only(tmp_path):
    row = next(row for row in LISTS["mnist"]() if row.name == "nst_linear")
    files = files_of(MNIST, tmp_path / "one")

    def key(row=row, seed=0, protocol=MNIST, files=files):
        return order(row, seed, protocol, files).key

    same = [key(), key(files=files_of(MNIST, tmp_path / "moved")), key(dataclasses.replace(row, title="x", why="y"))]
    assert len(set(same)) == 1
    heavier = dataclasses.replace(row, objectives=(*row.objectives[:-1], {**row.objectives[-1], "weight": 49.0}))
    others = [
        key(seed=1), key(heavier), key(dataclasses.replace(row, teachers=0)),
        key(protocol=dataclasses.replace(MNIST, training={**MNIST.training, "learning_rate": 0.001})),
        key(files=files_of(MNIST, tmp_path / "other", b"others")),
    ]  # fmt: skip
    assert len({*same, *others}) == 1 + len(others)


def test_results_are_valid_until_a_default_of_their_methods_changes(tmp_path):
    schedule = {"name": "two_stage", "first": [named("hint")], "fraction": 0.2}
    row = Row("x", "x", "", "", (named("kd"),), schedule)
    given = order(row, 0, MNIST, files_of(MNIST, tmp_path / "files"))
    assert given.spec["objectives"][0]["temperature"] == 4.0
    assert given.spec["procedure"]["first"][0]["form"] == "one_stage" and given.spec["training"]["schedule"] == "cosine"
    store = Store(tmp_path / "rows.jsonl")
    for change, holds in (
        (lambda spec: None, True),
        (lambda spec: spec["objectives"][0].pop("standardise"), True),  # a parameter that did not exist then
        (lambda spec: spec["objectives"][0].update(temperature=3.0), False),
        (lambda spec: spec["procedure"]["first"][0].update(form="paper"), False),
        (lambda spec: spec["objectives"].append(named("cross_entropy")), False),
        (lambda spec: spec.update(gone=1), False),
    ):
        then = json.loads(json.dumps(given.spec))
        change(then)
        store.add({"key": given.key, "spec": then, "accuracy": 0.5})
        assert (find(given, store) is not None) == holds


def test_stored_runs_are_repeated_only_on_request(tmp_path):
    files, store = files_of(MNIST, tmp_path / "files"), Store(tmp_path / "rows.jsonl")

    def wanted(only=("plain", "kd"), again=(), seeds=2):
        asked = argparse.Namespace(only=list(only), again=list(again), seeds=seeds)
        return [(each.seed, each.row) for each in compare.wanted_orders(MNIST, files, asked, store)]

    assert wanted() == [(0, "plain"), (0, "kd"), (1, "plain"), (1, "kd")]
    plain = next(row for row in LISTS["mnist"]() if row.name == "plain")
    given = order(plain, 0, MNIST, files)
    store.add({"key": given.key, "spec": given.spec})
    assert wanted() == [(0, "kd"), (1, "plain"), (1, "kd")]
    assert wanted(only=(), again=("plain",)) == [(0, "plain"), (1, "plain")]
    assert wanted(only=("ban_1", "ban_2", "ban_3"), seeds=1) == [(0, "ban_1")]  # the generations belong to one job


def test_a_row_with_an_unknown_method_is_refused_with_a_reason(tmp_path):
    row = Row("x", "x", "", "", (named("no_such_method"),))
    found = compare.kept(row, MNIST, files_of(MNIST, tmp_path / "files"), Store(tmp_path / "rows.jsonl"))
    assert "no_such_method" in found["refused"]


def test_a_sample_is_balanced_and_depends_on_the_seed_only():
    label = torch.randint(10, (3000,), generator=torch.Generator().manual_seed(1))
    one, again, other = (drawn(label, 200, seed) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert label[one].bincount().tolist() == [20] * 10 and len(one.unique()) == 200


def quantile_of_t(degrees):
    """The 0.975 quantile by bisection, with the density integrated by the trapezoidal rule."""
    scale = math.gamma((degrees + 1) / 2) / (math.sqrt(degrees * math.pi) * math.gamma(degrees / 2))

    def above_zero(t, parts=4000):
        density = [scale * (1 + (t * k / parts) ** 2 / degrees) ** (-(degrees + 1) / 2) for k in range(parts + 1)]
        return t / parts * (sum(density) - (density[0] + density[-1]) / 2)

    low, high = 0.0, 20.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if above_zero(middle) < 0.475 else (low, middle)
    return low


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_the_interval_equals_the_formula(count):
    draw = random.Random(count)
    ours, theirs = ({seed: draw.gauss(0.95, 0.01) for seed in range(count)} for _ in range(2))
    found = paired({**ours, 98: 0.1}, {**theirs, 99: 0.9})
    differences = [ours[seed] - theirs[seed] for seed in range(count)]
    mean = sum(differences) / count
    error = math.sqrt(sum((each - mean) ** 2 for each in differences) / (count - 1) / count)
    assert found.mean == pytest.approx(mean) and found.half == pytest.approx(quantile_of_t(count - 1) * error, rel=1e-3)


def test_a_difference_has_a_sign_only_if_its_interval_excludes_zero():
    assert [Difference(0.02, 0.01).sign, Difference(-0.02, 0.01).sign] == [1, -1]
    assert [Difference(0.01, 0.02).sign, Difference(0.01, None).sign] == [0, 0]
    assert paired({1: 0.5}, {2: 0.5}) is None and paired({1: 0.75}, {1: 0.5}) == Difference(0.25, None)


def test_a_row_uses_the_accuracy_of_the_network_that_it_names():
    run = {"accuracy": 0.9, "kept": {"peer_1": 0.7, "peer_2": 0.8}}
    rows = [Row("x", "x", "", "", (), reads=reads) for reads in ("student", "peer_2", "cohort")]
    assert [accuracy_of(row, run) for row in rows] == [0.9, 0.8, pytest.approx(0.8)]


def test_the_last_complete_line_of_a_key_counts(tmp_path):
    store = Store(tmp_path / "rows.jsonl")
    store.add({"key": "a", "accuracy": 1})
    store.add({"key": "a", "accuracy": 2})
    with store.path.open("a") as file:
        file.write('{"key": "b", "accu')
    again = Store(store.path)
    assert again.rows == {"a": {"key": "a", "accuracy": 2}}
    again.add({"key": "c", "accuracy": 3})
    assert Store(store.path).rows.keys() == {"a", "c"}


def test_a_run_is_measured_stored_and_written_to_the_page(tmp_path):
    """End to end at a small scale: images, a teacher, three rows with two seeds, the page and its plot."""
    protocol = dataclasses.replace(
        MNIST, input={**MNIST.input, "height": 16, "width": 16}, images=40, teachers=1, seeds=(0, 1),
        training={**MNIST.training, "steps": 3, "batch_size": 8}, teacher_training={**MNIST.training, "steps": 3},
    )  # fmt: skip
    files = images(protocol, _npz(tmp_path / "data.npz"), tmp_path / "mnist")
    teacher = tmp_path / "teacher.safetensors"
    _save_teacher(protocol, teacher)
    files = dataclasses.replace(files, teachers=(teacher,))
    store = Store(tmp_path / "mnist" / "rows.jsonl")
    rows = {row.name: row for row in LISTS["mnist"]() if row.name in ("plain", "kd", "fsp")}
    with compare._processes(
        1
    ) as pool:  # separate processes, as in the script, since memory is measured from what a process holds already
        for found in pool.map(
            measure, [order(row, seed, protocol, files) for row in rows.values() for seed in protocol.seeds]
        ):
            store.add(found)
    found = {name: compare.kept(row, protocol, files, store) for name, row in rows.items()}
    facts = {"teachers": [0.9], "rows": found, "torch": "2"}
    (tmp_path / "mnist" / "facts.json").write_text(json.dumps(facts))

    _, found = read(tmp_path / "mnist", list(rows.values()))
    assert found["kd"].typical("steps") == 3 and found["kd"].step_milliseconds > 0 and len(found["kd"].runs) == 2
    assert found["plain"].typical("memory_mb") > 0 and "agreement" not in found["plain"].runs[0]
    assert "channels" in found["fsp"].refused and not found["fsp"].runs
    page = tmp_path / "page.md"
    page.write_text(f"by hand\n{compare_page.BEGIN}\nold\n{compare_page.END}\nand below")
    compare_page.write(page, tmp_path)
    text = page.read_text()
    assert text.startswith("by hand\n") and text.endswith("\nand below") and "\nold\n" not in text
    assert f"{100 * found['kd'].mean:.2f} % (2 seeds)" in text and found["fsp"].refused in text
    assert page.with_suffix(".svg").read_text().count("<circle") == 1


def test_the_plot_has_a_line_for_each_row_except_plain_training():
    plain, better = Row("plain", "plain", "", "", ()), Row("kd", "KD & more", "", "", ())
    measured = [
        Measured(plain, {0: {"accuracy": 0.9}, 1: {"accuracy": 0.91}}),
        Measured(better, {0: {"accuracy": 0.93}, 1: {"accuracy": 0.95}}),
    ]
    drawing = plot(measured, measured[0])
    assert drawing.count("<circle") == 1 and "KD &amp; more" in drawing
    assert plot([], None).startswith("<svg")


def _npz(path):
    import numpy as np

    draw = np.random.default_rng(0)
    label = np.arange(200) % 10
    image = draw.integers(0, 256, (200, 28, 28), dtype=np.uint8)
    np.savez(path, x_train=image, y_train=label, x_test=image[:50], y_test=label[:50])
    return path


def _save_teacher(protocol, path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = networks.build(protocol.teacher, protocol.classes, read_contract(protocol.input), {})
    save_file(network.state_dict(), path)
