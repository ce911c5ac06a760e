"""Multi-label teachers: the losses of each label, and students without data."""

import io
import json
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from tests.worker.distillation.killed_runs import INPUT, events_of, job_of, run_killed, same_bits, student_of
from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.process.event_pipe import Channel
from worker.distillation.reporting.measurement import Measurement
from worker.distillation.run import Run
from worker.distillation.source import Source
from worker.distillation.step import Outputs
from worker.distillation.synthesis.collapse import NAMES, measure
from worker.distillation.synthesis.image_loss import Seen

LABELS = 3
DRAW = torch.Generator().manual_seed(0)
LOGITS, ANSWER = 3 * torch.randn(7, LABELS, generator=DRAW), torch.randn(7, LABELS, generator=DRAW)
SEEN = Seen(torch.randn(7, 1, 4, 4, generator=DRAW), Outputs(LOGITS), LOGITS, [ANSWER], independent=True)


def test_each_label_is_a_choice_of_its_own():
    assert SEEN.one_hot().item() == pytest.approx(
        F.binary_cross_entropy_with_logits(LOGITS, (LOGITS > 0).float()).item(), rel=1e-5
    )
    entropy = 0.0
    for label in range(LABELS):
        on = sum(1 / (1 + math.exp(-float(row[label]))) for row in LOGITS) / 7
        entropy += on * math.log10(on) + (1 - on) * math.log10(1 - on)
    assert SEEN.information_entropy().item() == pytest.approx(entropy / LABELS, rel=1e-5)
    found = dict(zip(NAMES, measure(SEEN).tolist(), strict=True))
    assert found["balance"] == pytest.approx(-entropy / LABELS / math.log10(2), rel=1e-5)
    assert found["agreement"] == pytest.approx(float(((LOGITS > 0) == (ANSWER > 0)).float().mean()))
    probability = LOGITS.sigmoid()
    assert found["confidence"] == pytest.approx(float(torch.maximum(probability, 1 - probability).mean()), rel=1e-5)
    assert found["disagreement"] == pytest.approx(float((LOGITS - ANSWER).abs().mean() / LOGITS.abs().mean()), rel=1e-4)


def test_an_output_that_is_certain_has_finite_terms():
    certain = torch.tensor([[200.0], [200.0]], requires_grad=True)
    seen = Seen(torch.zeros(2, 1, 4, 4), Outputs(certain), certain, [], independent=True)
    value = seen.information_entropy() + seen.one_hot()
    (gradient,) = torch.autograd.grad(value, certain)
    assert value == 0 and gradient.isfinite().all()


def write_inputs(folder):
    """Images of up to three bright bars, and a teacher that detects them."""
    draw = torch.Generator().manual_seed(7)
    label = torch.randint(0, 2, (96, LABELS), generator=draw).float()
    image = torch.randint(0, 120, (96, 1, 16, 16), generator=draw, dtype=torch.uint8)
    for number in range(LABELS):
        image[label[:, number] > 0, :, 5 * number : 5 * number + 5] += 120
    torch.manual_seed(11)
    teacher = networks.build("lenet5", LABELS, read_contract(INPUT), {})
    optimizer = torch.optim.Adam(teacher.parameters(), lr=3e-3)
    x = (image.float() / 255 - 0.5) / 0.25
    for _ in range(80):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(teacher(x), label).backward()
        optimizer.step()
    inputs = folder / "inputs"
    inputs.mkdir(parents=True)
    save_file(teacher.state_dict(), inputs / "teacher.safetensors")
    names = {"class_names": json.dumps(list("abc"))}
    save_file({"train.image": image, "train.label": label}, inputs / "dataset.safetensors", names)


SMALL = {
    "generator_width": 8,
    "latent": 8,
    "generator_batch": 32,
    "student_steps_per_generator_step": 4,
    "precision": "fp32",
}
KD = {"name": "kd", "outputs": "sigmoid"}


def job(folder, steps=160, objectives=(KD,), **source):
    write_inputs(folder)
    made = job_of(
        folder, classes=LABELS, task="multi_label", source={"name": "dafl", **SMALL} | source, objectives=list(objectives),
        training={"steps": steps, "batch_size": 32, "optimizer": "adam", "learning_rate": 0.004},
        evaluation={"split": "train"},
    )  # fmt: skip
    made.values["evaluation"] = "inputs/dataset.safetensors"
    return made


def run(made):
    output = io.StringIO()
    return Run(made, Channel(output)).execute(), events_of(output)


def test_a_student_from_nothing_learns_them_without_data(tmp_path):
    made = job(tmp_path / "job")
    _, events = run(made)
    balance = [each["values"]["generator/class_balance"] for each in events if each["event"] == "metrics"]
    assert balance[-1] > 0.9
    report = json.loads((tmp_path / "job/output/report.json").read_text())
    assert report["evaluation"]["student"]["agreement"] > 0.85


@pytest.mark.parametrize("source", ["dafl", "noise"])
def test_a_student_learns_the_teachers_label_decisions_and_a_killed_run_resumes(source, tmp_path):
    objectives = [{"name": "binary_cross_entropy"}, KD]

    def small(place):
        made = job(tmp_path / place, 6, objectives)
        made.spec["source"].update(labels="teacher", **({"initial_generator_steps": 1} if source == "dafl" else {}))
        if source == "noise":
            made.spec["source"] = {"name": "noise", "labels": "teacher"}
        return made

    run(small("whole"))
    run_killed(small("killed"), 3, tmp_path / "restored")
    assert same_bits(student_of(tmp_path / "whole"), student_of(tmp_path / "restored"))


def test_the_score_without_data_is_of_each_label(tmp_path):
    samples = torch.randn(40, 1, 4, 4)
    logits = torch.randn(2, 40, LABELS)

    class Given(Source):
        def samples(self, count):
            return samples

    parts = [iter(logits[number].split(32)) for number in range(2)]
    student, teacher = (lambda _, part=part: next(part) for part in parts)
    found = Measurement(job(tmp_path / "job"), teacher, None, Given(), lambda: None).measure(student)["without_data"]
    equal = sum(bool((ours > 0) == (theirs > 0)) for ours, theirs in zip(*logits.flatten(1), strict=True))
    expected = pytest.approx(equal / (40 * LABELS))
    assert found == {"samples": 40, "agreement_with_teacher": expected, "estimate": None}
