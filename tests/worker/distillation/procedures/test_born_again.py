"""Born-again networks: each generation is fresh, has a seed of its own, learns from the one before, and is kept."""

import io
import shutil

import torch

from tests.worker.distillation.killed_runs import same_bits
from tests.worker.distillation.procedures.plans import STUDENT, plan_of, procedure_of, stages_of
from tests.worker.distillation.procedures.trained import report_of, run_in, taught, terms_of, weights_of
from worker.distillation.channel import Channel
from worker.distillation.procedure import GIVEN
from worker.distillation.run import Run
from worker.distillation.source import Position

TWO = {"name": "born_again", "generations": 2}


def test_each_generation_learns_from_the_one_before():
    stages, _ = stages_of(procedure_of("born_again"), plan_of())
    assert [stage.name for stage in stages] == ["generation_1", "generation_2", "generation_3"]
    assert [stage.teacher for stage in stages] == [
        GIVEN, "stage:generation_1/student", "stage:generation_2/student",
    ]  # fmt: skip
    members = [stage.members["student"] for stage in stages]
    assert all((member.network, member.objectives) == (STUDENT.network, STUDENT.objectives) for member in members)
    assert [member.initial for member in members] == [GIVEN, None, None]
    assert len({stage.seeded_by for stage in stages}) == 3


def test_without_a_teacher_generation_zero_is_trained_on_labels():
    zero, first, _ = stages_of(procedure_of("born_again", generations=2), plan_of(teacher=None))[0]
    assert (zero.teacher, zero.phase, first.teacher) == (None, "training_teacher", "stage:generation_0/teacher")
    assert [each["name"] for each in zero.members["teacher"].objectives] == ["cross_entropy"]
    assert zero.members["teacher"].network == STUDENT.network


def test_generations_are_fresh_and_all_are_kept(engine_inputs, tmp_path):
    folder = tmp_path / "job"
    done = run_in(engine_inputs, folder, TWO, teacher=False, training={"steps": 3}, evaluation={"split": "train"})
    stages, _ = stages_of(done.lineage.procedure, done.lineage.plan)
    beginnings = [done.lineage.initial(stage, name).conv1.weight for stage in stages for name in stage.members]
    assert all(not torch.equal(beginnings[i], beginnings[j]) for i in range(3) for j in range(i))
    assert [kept["name"] for kept in report_of(folder)["kept"]] == ["generation_0", "generation_1"]
    for name, part in (("generation_0", "generation_0/teacher"), ("generation_1", "generation_1/student")):
        assert same_bits(weights_of(folder, name), done.checkpoints.thaw(f"stage/{part}"))
    assert same_bits(weights_of(folder), done.checkpoints.thaw("stage/generation_2/student"))


def test_the_first_generation_is_plain_distillation_to_the_bit(engine_inputs, tmp_path):
    run_in(engine_inputs, tmp_path / "twice", TWO)
    run_in(engine_inputs, tmp_path / "once", {"name": "direct"})
    assert same_bits(weights_of(tmp_path / "twice", "generation_1"), weights_of(tmp_path / "once"))


class Watched(Run):
    """Keeps the state of torch's generator after the first step: what dropout, for one, draws from."""

    state = None

    def _attend(self, run):
        self.state = torch.get_rng_state() if self.state is None else self.state
        super()._attend(run)


def test_the_first_generation_draws_from_the_streams_of_plain_distillation(engine_inputs, tmp_path):
    states = []
    for name in ("born_again", "direct", "two_stage"):
        values = {"preset": "fitnets"} if name == "two_stage" else {}
        shutil.copytree(engine_inputs, tmp_path / name)
        run = Watched(taught(tmp_path / name, {"name": name} | values), Channel(io.StringIO()))
        run.execute()
        states.append(run.state)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_the_second_generation_is_taught_by_the_first(engine_inputs, tmp_path):
    """Its first loss is the divergence between the networks that it and the first generation then are."""
    done = run_in(engine_inputs, tmp_path / "job", TWO, objectives=[{"name": "kd", "temperature": 1.0}])
    history, plan = done.lineage.history, done.lineage.plan
    stage = done.lineage.procedure.next(history[:1], plan)
    fresh, teacher = done.lineage.initial(stage, "student"), done.lineage.network("generation_1/student").eval()
    batch = done.source.batch(Position(0, 0, 0, 0.0), {})
    with torch.no_grad():
        p, q = teacher(batch.image).softmax(1), fresh(batch.image).log_softmax(1)
    divergence = (p * (p.log() - q)).sum(1).mean().item()
    steps = history[0].steps
    torch.testing.assert_close(terms_of(done, "kd/kd")[steps], divergence, rtol=1e-4, atol=1e-7)
