"""Born-again networks: each generation has its own seed, learns from the one before, and is kept."""

import io
import shutil

import onnxruntime
import pytest
import torch

from tests.worker.distillation.killed_runs import same_bits
from tests.worker.distillation.procedures.plans import STUDENT, plan_of, procedure_of, stages_of
from tests.worker.distillation.procedures.trained import report_of, run, run_in, taught, terms_of, weights_of
from worker.distillation.job import Job
from worker.distillation.procedure import GIVEN
from worker.distillation.process.event_pipe import Channel
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
    assert [kept["name"] for kept in report_of(folder)["kept"]] == ["generation_0", "generation_1", "ensemble"]
    for name, part in (("generation_0", "generation_0/teacher"), ("generation_1", "generation_1/student")):
        assert same_bits(weights_of(folder, name), done.checkpoints.thaw(f"stage/{part}"))
    assert same_bits(weights_of(folder), done.checkpoints.thaw("stage/generation_2/student"))


def ensemble_of(inputs, folder, exports):
    """A job of two generations in a folder: the run, its generations, its evaluation images, and the mean of the
    generations."""
    shutil.copytree(inputs, folder)
    job = taught(folder, TWO, training={"steps": 3}, evaluation={"split": "train"}, exports=exports)
    done = run(Job({**job.values, "evaluation": "inputs/dataset.safetensors"}, folder))
    generations = [done.lineage.network(f"generation_{number}/student").eval() for number in (1, 2)]
    images = done.inputs.evaluation[0]
    with torch.no_grad():
        mean = sum(network(images.normalise(images.image)).softmax(1) for network in generations) / 2
    return done, generations, images, mean


def test_the_ensemble_is_kept_and_measured(engine_inputs, tmp_path):
    folder = tmp_path / "job"
    done, generations, images, mean = ensemble_of(engine_inputs, folder, ["safetensors"])
    weights = weights_of(folder, "ensemble")
    for number, network in enumerate(generations):
        whole = {f"{number}.{key}": value for key, value in network.state_dict().items()}
        assert same_bits(whole, _part(weights, number))
    ensemble = next(kept for kept in report_of(folder)["kept"] if kept["name"] == "ensemble")
    assert ensemble["evaluation"]["accuracy"] == pytest.approx((mean.argmax(1) == images.label).double().mean().item())
    loss = -mean.log()[torch.arange(len(images)), images.label].mean()
    assert ensemble["evaluation"]["cross_entropy"] == pytest.approx(loss.item(), rel=1e-5)
    assert ensemble["options"]["members"] == [{"network": "lenet5_half", "options": {}}] * 2
    artifacts = {event["name"] for event in done.events if event["event"] == "artifact"}
    stems = ("student", "generation_1", "ensemble")
    networks = {f"{stem}.{ending}" for stem in stems for ending in ("safetensors", "py")}
    assert artifacts == networks | {"README.md", "student.json", "report.json"}


@pytest.mark.slow
def test_the_ensemble_is_one_graph(engine_inputs, tmp_path):
    _, _, images, mean = ensemble_of(engine_inputs, tmp_path / "job", ["onnx"])
    path = tmp_path / "job" / "output" / "ensemble.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": images.normalise(images.image).numpy()})
    torch.testing.assert_close(torch.from_numpy(logits).softmax(1), mean, rtol=1e-4, atol=1e-6)


def _part(weights, number):
    return {key: value for key, value in weights.items() if key.startswith(f"{number}.")}


def test_an_ensemble_has_two_members_at_least_and_not_the_teacher():
    def ensembles(plan, **values):
        procedure = procedure_of("born_again", **values)
        return procedure.ensembles(stages_of(procedure, plan)[1], plan)

    assert ensembles(plan_of(teacher=None), generations=2) == {
        "ensemble": ("generation_1/student", "generation_2/student")
    }
    assert ensembles(plan_of(teacher=None), generations=1) == {}
    assert ensembles(plan_of(), ensemble=False) == {}
    assert ensembles(plan_of(task="regression")) == {}


def test_the_first_generation_is_plain_distillation_to_the_bit(engine_inputs, tmp_path):
    run_in(engine_inputs, tmp_path / "twice", TWO)
    run_in(engine_inputs, tmp_path / "once", {"name": "direct"})
    assert same_bits(weights_of(tmp_path / "twice", "generation_1"), weights_of(tmp_path / "once"))


class Watched(Run):
    """Records the state of torch's global generator, from which dropout draws, after the first step."""

    random_state = None

    def after_step(self, run):
        self.random_state = torch.get_rng_state() if self.random_state is None else self.random_state
        super().after_step(run)


def test_the_first_generation_draws_from_the_streams_of_plain_distillation(engine_inputs, tmp_path):
    states = []
    for name in ("born_again", "direct", "two_stage"):
        values = {"preset": "fitnets"} if name == "two_stage" else {}
        shutil.copytree(engine_inputs, tmp_path / name)
        run = Watched(taught(tmp_path / name, {"name": name} | values), Channel(io.StringIO()))
        run.execute()
        states.append(run.random_state)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_the_second_generation_is_taught_by_the_first(engine_inputs, tmp_path):
    """Its first loss is the divergence between its own initial network and the first generation."""
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
