"""The loops that are compared do the same: with the same batches their losses would be equal, and the script prints its table."""

import pytest
import torch

from benchmarks.loop.__main__ import loops, table
from benchmarks.loop.engine_loop import job_of, stage_of, write_inputs
from benchmarks.loop.peers import Box
from benchmarks.loop.setting import kd_loss, setting
from benchmarks.loop.turns import measured
from worker.distillation.source import Position


@pytest.fixture
def given():
    return setting("resnet14_cifar", "resnet8_cifar", 32, 8)


def test_the_box_and_the_bare_loop_have_one_loss(given):
    made = Box(given)
    x, label = given.normalised(8), given.label[:8]
    teacher, student = given.networks()
    teacher, student = teacher.eval(), student.eval()
    made.eval()
    torch.testing.assert_close(made(x, label), kd_loss(student(x), teacher(x), label))


def test_the_engine_has_the_same_loss_and_the_same_networks(given, tmp_path):
    write_inputs(given, tmp_path)
    run = stage_of(job_of(given, tmp_path, {}, {}))
    teacher, student = given.networks()
    run.members["student"].network.load_state_dict(student.state_dict())
    run.advance()
    batch = run.source.batch(Position(epoch=0, step=0, number=0, progress=0.0), {})
    loss = kd_loss(student.train()(batch.image), teacher(batch.image), batch.fields["label"])
    assert run.metrics()["loss"] == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.slow
def test_the_table_has_a_line_for_each_loop(given, tmp_path):
    write_inputs(given, tmp_path)
    found = measured(loops(given, tmp_path, views=2), turns=1, steps=1)
    lines = table(found).splitlines()
    assert len(lines) == 2 + 14 and lines[2].startswith("| bare, none |")
