"""The benchmark of the estimate: its statistics against known values, and one short training that is measured on its way."""

import argparse

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.datafree import score
from benchmarks.datafree.robustness import ROWS
from worker.distillation import networks
from worker.distillation.synthesis import estimate

NAME = "LeNet-5, 2 classes"


def row(estimated, agreement, **more):
    return {
        "row": "a",
        "source": "dafl",
        "steps": 9,
        "seed": 0,
        "at": 9,
        "estimate": estimated,
        "agreement": agreement,
    } | more


def test_the_rank_correlation_is_spearmans():
    pairs = [(0.1, 0.2), (0.4, 0.3), (0.4, 0.9), (0.9, 0.8)]
    rows = [row(*pair) for pair in pairs]
    ranks = torch.tensor([[1, 2.5, 2.5, 4], [1, 2, 4, 3]])
    assert score.rank_correlation(rows) == pytest.approx(float(torch.corrcoef(ranks)[0, 1]))
    assert score.rank_correlation([row(0.1, 0.1), row(0.2, 0.5), row(0.3, 0.6)]) == pytest.approx(1)


def test_the_table_counts_poor_students_and_false_alarms():
    rows = [row(0.6, 0.5), row(0.8, 0.95, row="b"), row(0.95, 0.99), row(0.99, 0.85, at=3), row(None, 0.9)]
    text = score.report(rows)
    last, every = text.split("4 all students")
    assert "3 finished trainings of 2 teachers" in last and "| 85% | 2 | 1 of 1 | 1 of 1 | 1 of 2 |" in last
    assert "| 85% | 2 | 1 of 1 | 1 of 2 | 1 of 2 |" in every
    assert "largest over-estimate +14.0% (a, dafl, seed 0, step 3)" in every and "-15.0% (b" in every


@pytest.mark.slow
def test_a_training_is_measured_at_the_steps_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "IMAGES", 128)
    monkeypatch.setattr(estimate, "CONFIDENT", 0.3)
    torch.manual_seed(0)
    weights = networks.build("lenet5", 2, ROWS[NAME].contract, {}).state_dict()
    save_file(
        {name: 4 * tensor for name, tensor in weights.items()}, tmp_path / "teacher_LeNet-5_2_classes.safetensors"
    )
    arguments = argparse.Namespace(
        rows_file=None,
        rows=None,
        own=[NAME],
        sources=["procedural"],
        steps=4,
        at=[2],
        seeds=[0, 1],
        training={},
        results=tmp_path,
    )
    first, second = score.asked(arguments)
    assert (first["seed"], second["seed"]) == (0, 1) and first["row"] == NAME
    found = score.run(first, arguments)
    assert [each["at"] for each in found] == [2, 4]
    assert all(0 <= each["agreement"] <= 1 and each["images"] >= 30 for each in found)
    (fewer,) = tmp_path.glob("fewer_*")
    assert len(load_file(fewer)["test.image"]) <= score.MOST_IMAGES
