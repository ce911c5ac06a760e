"""The cost of data-free distillation: the transcription of the published algorithm, measurements without side effects, turns, the table."""

import io
import math
import multiprocessing
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.datafree import __main__ as datafree
from benchmarks.datafree import cost, published_dafl
from benchmarks.mnist import digits
from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.data.images import Images
from worker.distillation.job import Job
from worker.distillation.process.event_pipe import Channel
from worker.distillation.run import Run
from worker.distillation.synthesis.generator import Generator

CONTRACT = read_contract(digits.INPUT)


def lenet(name, seed):
    torch.manual_seed(seed)
    return networks.build(name, digits.CLASSES, CONTRACT, {})


def test_the_published_generator_equals_the_paper_preset():
    torch.manual_seed(0)
    ours = Generator(CONTRACT, published_dafl.LATENT, published_dafl.WIDTH, "full")
    published = published_dafl.generator()
    assert sum(parameter.numel() for parameter in published.parameters()) == 1_049_985
    published.load_state_dict(dict(zip(published.state_dict(), ours.state_dict().values(), strict=True)))
    noise = torch.randn(4, published_dafl.LATENT)
    torch.testing.assert_close(published(noise), ours(noise), rtol=1e-4, atol=1e-4)


def test_the_losses_equal_the_formulas_written_slowly():
    torch.manual_seed(0)
    teacher, student, features = torch.randn(5, 3) * 2, torch.randn(5, 3), torch.randn(5, 7)
    rows = [[math.exp(value) for value in row] for row in teacher.tolist()]
    p = [[value / sum(row) for value in row] for row in rows]
    one_hot = sum(-math.log(max(row)) for row in p) / 5
    mean = [sum(row[k] for row in p) / 5 for k in range(3)]
    entropy = sum(value * math.log10(value) for value in mean)
    activation = -sum(abs(value) for row in features.tolist() for value in row) / 35
    found = published_dafl.generator_loss(teacher, features).item()
    assert found == pytest.approx(1.0 * one_hot + 5.0 * entropy + 0.1 * activation, rel=1e-5)

    q = [[math.exp(value) / sum(map(math.exp, row)) for value in row] for row in student.tolist()]
    kl = sum(a * math.log(a / b) for one, other in zip(p, q, strict=True) for a, b in zip(one, other, strict=True))
    assert published_dafl.distillation_loss(student, teacher).item() == pytest.approx(kl / 5, rel=1e-5)


def test_the_published_generators_loss_does_not_depend_on_the_student():
    """The teacher's weights are not frozen, so their gradients show which losses reach the images."""
    gradients = []
    for seed in (1, 2):
        teacher, student = lenet("lenet5", 0), lenet("lenet5_half", seed)
        before = student.conv1.weight.clone()
        torch.manual_seed(3)
        next(published_dafl.iterations(teacher, student, batch=8, width=4))
        assert not torch.equal(student.conv1.weight, before)
        gradients.append(teacher.conv1.weight.grad)
    assert gradients[0].abs().sum() > 0 and torch.equal(*gradients)


@pytest.mark.slow
def test_measurements_do_not_change_the_engines_run(tmp_path, monkeypatch):
    weights = tmp_path / "teacher.safetensors"
    save_file(lenet("lenet5", 0).state_dict(), weights)
    source = {
        "name": "dafl",
        "generator_width": 4,
        "generator_batch": 8,
        "pool_images": 16,
        "initial_generator_steps": 1,
    }
    row = datafree.Row("teacher", source=source, training={"steps": 10, "batch_size": 8})
    values = datafree.job(row, "adam", 0, tmp_path / "none", weights) | {"evaluation": None}
    values["spec"]["exports"] = ["safetensors"]
    monkeypatch.setattr(cost, "LOOKS", [n / 1000 for n in range(100_000)])
    image = torch.randint(0, 256, (12, 1, 32, 32), dtype=torch.uint8)
    curve = cost.Curve(Images.of(image, torch.arange(12) % 10, tuple("0123456789"), CONTRACT))

    plain = Run(Job(values, tmp_path / "plain"), Channel(io.StringIO()))
    watched = cost.WatchedRun(Job(values, tmp_path / "watched"), Channel(io.StringIO()), curve)
    for run in (plain, watched):
        run.execute()
    students = [(run.job.folder / "output" / "student.safetensors").read_bytes() for run in (plain, watched)]
    assert students[0] == students[1]
    assert len(curve.points) > 5 and curve.points[-1][1] == 10
    assert [each[0] for each in curve.points] == sorted(each[0] for each in curve.points)


def test_the_time_of_a_measurement_is_not_counted(monkeypatch):
    image = torch.zeros(2000, 1, 32, 32, dtype=torch.uint8)
    curve = cost.Curve(Images.of(image, torch.arange(2000) % 10, tuple("0123456789"), CONTRACT))
    student = lenet("lenet5_half", 0)
    began = time.process_time()
    before = curve.seconds()
    for step in range(10):
        curve.look(student, step, force=True)
    assert time.process_time() - began > 5 * (curve.seconds() - before)
    assert student.training


def test_processes_take_turns_and_none_is_left_over():
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=time.sleep, args=(seconds,)) for seconds in (0.01, 0.2)]
    cost.take_turns(processes, seconds=0.1)
    assert [process.exitcode for process in processes] == [0, 0]
    failing = [context.Process(target=time.sleep, args=(60,)), context.Process(target=sys.exit, args=(3,))]
    with pytest.raises(RuntimeError, match="ended with 3"):
        cost.take_turns(failing, seconds=0.1)
    failing[0].join(10)
    assert failing[0].exitcode == -9


def test_the_table_shows_first_times_marks_and_ends():
    ours = {"curve": [[19.0, 5, 0.94], [21.0, 6, 0.961], [70.0, 7, 0.985]], "steps": 7, "end": 70.0}
    published = {"curve": [[60.5, 2, 0.2], [151.0, 3, 0.3]], "steps": 3, "iteration": 3.0, "end": 72_000.0}
    lines = cost.table({"4": {"sides": {"ours, slices": ours, "as published": published}}}).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|") == lines[3].count("|")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert cells[0] == [
        "ours, slices",
        "4",
        "21 s",
        "70 s",
        "70 s",
        "96.10%",
        "98.50%",
        "–",
        "98.50% (70 s, 7 steps)",
        "70 s",
    ]
    assert (
        cells[1][2:7] == ["–", "–", "–", "20.00%", "20.00%"] and cells[1][-1] == "projected: 20.0 h (3.00 s per step)"
    )
