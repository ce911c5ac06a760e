"""FitNets through the whole engine: the first stage does not change the head, the second starts from its weights."""

import io
import shutil

import torch

from tests.worker.distillation.killed_runs import job_of
from worker.distillation.introspection.taps import Tapped, parameters_through
from worker.distillation.process.event_pipe import Channel
from worker.distillation.run import Run

FITNETS = {"name": "two_stage", "preset": "fitnets", "guided": "relu2", "hint": "relu2"}


def test_the_head_keeps_its_initial_weights_through_the_first_stage(engine_inputs, tmp_path):
    folder = tmp_path / "job"
    shutil.copytree(engine_inputs, folder)
    run = Run(job_of(folder, procedure=FITNETS, training={"steps": 6}), Channel(io.StringIO()))
    run.execute()
    first = run.lineage.procedure.next((), run.lineage.plan)
    initial = run.lineage.initial(first, "student")
    before = {name: value.clone() for name, value in initial.state_dict().items()}
    after, final = (run.checkpoints.thaw(f"stage/{stage}/student") for stage in ("first", "second"))
    guided = set(parameters_through(Tapped(initial, torch.zeros(2, 1, 16, 16)), "relu2"))
    assert guided == {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"}
    for name, value in before.items():
        assert torch.equal(after[name], value) == (name not in guided), name
        assert not torch.equal(final[name], after[name]), name
    assert [result.name for result in run.lineage.history] == ["first", "second"]
    assert set(run.lineage.history[0].metrics) >= {"loss", "hint/relu2~relu2"}
    assert set(run.lineage.history[1].metrics) >= {"loss", "cross_entropy/cross_entropy", "kd/kd"}
    assert [result.steps for result in run.lineage.history] == [2, 4]
