"""Contrastive representation distillation: its loss, its memories, and the choice of negatives."""

import math
import shutil
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from tests.worker.distillation.killed_runs import job_of, run_killed, run_whole, same_bits, student_of
from tests.worker.distillation.trial import Trial, objective_of
from worker.distillation.errors import SpecError
from worker.distillation.losses.contrastive import contrast, moved, other_classes
from worker.distillation.objective import BuildContext
from worker.distillation.randomness import seed_for
from worker.distillation.step import Step

SMALL = {"negatives": 6, "dimensions": 8}


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("count", [1, 10, 16384])
def test_uniform_predictions_cost_as_much_as_guessing(count):
    value = float(contrast(torch.zeros(4, 1 + count), torch.ones(4, dtype=torch.bool)))
    assert value == pytest.approx(math.log(count + 1) + count * math.log((count + 1) / count), rel=1e-5)
    if count == 16384:
        assert 2 * value == pytest.approx(21.408, abs=1e-3)


@pytest.mark.parametrize("images", [50, 50_000])
def test_equals_the_definition_for_any_number_of_images(images):
    torch.manual_seed(0)
    log_ratio = torch.randn(3, 6, dtype=torch.float64)
    expected = 0.0
    for row in log_ratio.exp() / images:
        h = row / (row + 5 / images)
        expected -= float(h[0].log() + (1 - h[1:]).log().sum()) / 3
    assert float(contrast(log_ratio, torch.ones(3, dtype=torch.bool))) == pytest.approx(expected)


def test_extreme_cosines_stay_finite():
    log_ratio = torch.tensor([[-200.0, 200.0, 200.0]], requires_grad=True)
    value = contrast(log_ratio, torch.tensor([True]))
    value.backward()
    assert value.isfinite() and log_ratio.grad.isfinite().all()
    ratio = log_ratio.detach().exp()
    assert not (1 - ratio / (ratio + 2)).log().isfinite().all()  # as in the definition


def test_negatives_are_even_over_other_known_classes():
    known = torch.tensor([2, 0, -1, 1, 0, 2, 0, -1, 1])
    rows, possible = other_classes(known, torch.tensor([0, 1, 2, 3]), 20_000, draw())
    assert possible.all()
    for label, chosen in zip([0, 1, 2, 3], rows.tolist(), strict=True):
        allowed = [row for row in range(9) if known[row] not in (-1, label)]
        counts = Counter(chosen)
        assert sorted(counts) == allowed
        mean = 20_000 / len(allowed)
        assert all(abs(count - mean) < 4.5 * mean**0.5 for count in counts.values())


def test_a_sample_without_others_has_no_negatives():
    known = torch.tensor([1, 1, -1])
    rows, possible = other_classes(known, torch.tensor([1, 0]), 5, draw())
    assert possible.tolist() == [False, True]
    assert rows.min() >= 0 and rows.max() < 3
    log_ratio = torch.randn(2, 6)
    alone = F.softplus(math.log(5) - log_ratio[0, 0])
    other = contrast(log_ratio[1:], torch.tensor([True]))
    torch.testing.assert_close(contrast(log_ratio, possible), (alone + other) / 2)
    nothing, possible = other_classes(torch.full((3,), -1), torch.tensor([0]), 5, draw())
    assert not possible.any() and nothing.max() < 3


def test_only_seen_rows_of_a_bank_change():
    bank = torch.randn(10, 4)
    index, value = torch.tensor([7, 2]), F.normalize(torch.randn(2, 4), dim=1)
    after = moved(bank, index, value, 0.5)
    others = [row for row in range(10) if row not in (7, 2)]
    assert torch.equal(after[others], bank[others])
    torch.testing.assert_close(after[index], F.normalize(0.5 * bank[index] + 0.5 * value, dim=1))
    torch.testing.assert_close(after[index].norm(dim=1), torch.ones(2))


def slow(objective, step, bank, x, positive, side):
    """One direction of the loss with the rows that the objective draws, sample by sample."""
    generator = draw_of(objective, step)
    rows, _ = other_classes(objective.known, step.label, objective.settings.negatives, generator)
    powers = []
    for vector, mine, chosen in zip(x, positive, rows, strict=True):
        powers.append([float((vector @ row / 0.07).exp()) for row in (mine, *bank[chosen])])
    images = 64
    z = images * sum(map(sum, powers)) / sum(map(len, powers))
    torch.testing.assert_close(float(objective.means[side]) * images, z, rtol=1e-4, atol=0)
    total = 0.0
    for mine, *others in powers:
        noise = len(others) / images
        total -= math.log(mine / z / (mine / z + noise))
        total -= sum(math.log(1 - other / z / (other / z + noise)) for other in others)
    return total / len(powers)


def draw_of(objective, step):
    return draw(seed_for(objective.seed, step.number))


def test_first_step_is_the_slow_formula_on_untouched_banks():
    trial = Trial.of("plain", objective_of("crd", **SMALL), samples=8)
    objective, step = trial.objective, trial.step()
    banks = objective.student_bank.clone(), objective.teacher_bank.clone()
    terms = objective(step)
    with torch.no_grad():
        pair = zip(objective.heads, objective.embeddings(step), strict=True)
        student, teacher = (F.normalize(head(x), dim=1) for head, x in pair)
    of_student = slow(objective, step, banks[1], student, banks[1][:8], 0)
    of_teacher = slow(objective, step, banks[0], teacher, banks[0][:8], 1)
    assert float(terms["student"].detach()) == pytest.approx(of_student, rel=1e-4)
    assert float(terms["teacher"].detach()) == pytest.approx(of_teacher, rel=1e-4)
    for bank, before, value in zip(
        (objective.student_bank, objective.teacher_bank), banks, (student, teacher), strict=True
    ):
        assert torch.equal(bank[8:], before[8:])
        torch.testing.assert_close(bank[:8], F.normalize(0.5 * before[:8] + 0.5 * value, dim=1))


@pytest.mark.parametrize("memory", ["banks", "queue"])
def test_the_constant_is_that_of_the_first_batch(memory):
    trial = Trial.of("plain", objective_of("crd", memory=memory, queue=16, **SMALL))
    trial.objective(trial.step())
    first = trial.objective.means.clone()
    assert (first > 0).all()
    trial.batch.image.data.mul_(3)
    sum(trial.objective(trial.step()).values()).backward()
    assert torch.equal(trial.objective.means, first)


def test_both_heads_learn_and_memories_do_not():
    trial = Trial.of("residual", objective_of("crd", **SMALL))
    sum(trial.objective(trial.step()).values()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in trial.objective.parameters())
    assert len(list(trial.objective.parameters())) == 4
    assert not any(buffer.requires_grad for buffer in trial.objective.buffers())


def test_negatives_depend_on_seed_and_step_alone():
    trial = Trial.of("plain", objective_of("crd", **SMALL), samples=8)
    step, before = trial.step(), torch.get_rng_state()
    state = {
        key: value.clone() if torch.is_tensor(value) else value for key, value in trial.objective.state_dict().items()
    }
    one = trial.objective(step)["student"]
    assert torch.equal(torch.get_rng_state(), before)
    trial.objective.load_state_dict(state)
    assert torch.equal(trial.objective(step)["student"], one)
    trial.objective.load_state_dict(state)
    later = Step(step.batch, step.student, step.teacher, progress=step.progress, number=1)
    assert not torch.equal(trial.objective(later)["student"], one)
    trial.objective.load_state_dict(state)
    trial.objective.seed += 1
    assert not torch.equal(trial.objective(step)["student"], one)


def test_a_queue_holds_the_latest_images():
    trial = Trial.of("plain", objective_of("crd", memory="queue", queue=10, **SMALL))
    objective = trial.objective
    assert trial.objective.active_needs.fields == ("label",) and not objective.active_needs.prepass
    del trial.batch.fields["index"]
    for number in range(3):
        step = trial.step()
        objective(step)
        with torch.no_grad():
            newest = F.normalize(objective.heads[0](objective.embeddings(step)[0]), dim=1)
        slots = torch.tensor([(4 * number + place) % 10 for place in range(4)])
        torch.testing.assert_close(objective.student_bank[slots], newest)
        assert torch.equal(objective.known[slots], step.label)
        assert (objective.known >= 0).sum() == min(10, 4 * (number + 1))
    assert objective.teacher_bank.shape == (10, 8)


def test_a_batch_larger_than_the_queue_leaves_its_end_there():
    trial = Trial.of("plain", objective_of("crd", memory="queue", queue=3, **SMALL))
    assert sum(trial.objective(trial.step()).values()).isfinite()
    assert torch.equal(trial.objective.known, trial.batch.fields["label"][-3:])


def test_banks_without_a_dataset_are_refused():
    trial = Trial.of("plain", objective_of("crd", **SMALL))
    step = trial.step()
    context = BuildContext(step.student, step.teacher, trial.student.network, trial.teacher.network, 5)
    with pytest.raises(SpecError) as caught:
        trial.objective.build(context)
    assert [problem.pointer for problem in caught.value.problems] == ["/memory"]


@pytest.mark.parametrize("memory", ["banks", "queue"])
def test_killed_and_restored_bit_equal(memory, engine_inputs, tmp_path):
    crd = {"name": "crd", "weight": 0.8, "memory": memory, "queue": 40, "negatives": 32, "dimensions": 16}
    spec = {
        "objectives": [{"name": "cross_entropy"}, crd],
        "training": {"steps": 6, "validation_fraction": 0.25},
    }
    shutil.copytree(engine_inputs, tmp_path / "whole")
    run_whole(job_of(tmp_path / "whole", **spec))
    for at in (1, 4, 6):
        shutil.copytree(engine_inputs, tmp_path / f"killed{at}")
        run_killed(job_of(tmp_path / f"killed{at}", **spec), at, tmp_path / f"restored{at}")
        assert same_bits(student_of(tmp_path / "whole"), student_of(tmp_path / f"restored{at}"))
