"""Attentive imitation and hints: weights from the teacher's error, and their losses through the engine."""

import io
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.worker.distillation.killed_runs import INPUT, job_of, run_killed, run_whole, same_bits, student_of
from tests.worker.distillation.trial import Trial, objective_of
from worker.distillation import networks
from worker.distillation.check import check
from worker.distillation.contract import read_contract
from worker.distillation.errors import SpecError
from worker.distillation.job import Job
from worker.distillation.losses.attentive import AttentionParameters, TeacherErrors, attention
from worker.distillation.process.event_pipe import Channel
from worker.distillation.run import Run
from worker.distillation.step import Batch, Outputs, Step

ERRORS = torch.tensor([0.0, 2.0, 5.0, 10.0])
POSE = {"rotations": 2, "rotation_weight": 100.0}
SAPUTRA = {"name": "two_stage", "preset": "saputra", "guided": "relu4", "hint": "relu4"}


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_the_best_output_has_weight_one_and_the_worst_zero(shift):
    error = ERRORS + shift
    torch.testing.assert_close(attention(error, error.min(), error.max()), torch.tensor([1.0, 0.8, 0.5, 0.0]))


def test_the_printed_formula_is_negative_if_all_outputs_are_wrong():
    low, high = ERRORS.min(), ERRORS.max()
    torch.testing.assert_close(attention(ERRORS, low, high, "literal"), torch.tensor([1.0, 0.8, 0.5, 0.0]))
    worse = attention(ERRORS + 5, low + 5, high + 5, "literal")
    torch.testing.assert_close(worse, torch.tensor([0.5, 0.3, 0.0, -0.5]))


def test_errors_that_augmentation_made_stay_within_bounds():
    worth = attention(torch.tensor([1.0, 30.0]), torch.tensor(5.0), torch.tensor(10.0))
    assert worth.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("form", ["scaled", "literal"])
def test_a_teacher_that_is_always_as_wrong_is_believed(form):
    same = torch.tensor(3.0)
    assert attention(torch.full((2,), 3.0), same, same, form).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("form", ["scaled", "literal"])
def test_imitation_is_the_formula_written_slowly(form):
    trial = Trial.of("plain", objective_of("attentive_imitation", form=form, targets=0.3, **POSE))
    step, weights = trial.step(), [1, 1, 1, 100, 100]
    student, teacher = step.student.logits.tolist(), step.teacher.logits.tolist()
    target = step.batch.fields["target"].tolist()

    def squared(one, other):
        return sum(w * (a - b) ** 2 for w, a, b in zip(weights, one, other, strict=True))

    errors = [squared(given, wanted) for given, wanted in zip(teacher, target, strict=True)]
    span, least = max(errors) - min(errors), min(errors) if form == "scaled" else 0
    worth = [1 - (error - least) / span for error in errors]
    hard = sum(map(squared, student, target)) / 4
    soft = sum(w * squared(mine, theirs) for w, mine, theirs in zip(worth, student, teacher, strict=True)) / 4
    with torch.no_grad():
        terms = trial.objective(step)
    assert float(terms["targets"]) == pytest.approx(0.3 * hard, rel=1e-4)
    assert float(terms["teacher"]) == pytest.approx(0.7 * soft, rel=1e-4)


def test_a_hint_is_the_formula_written_slowly():
    trial = Trial.of("plain", objective_of("attentive_hint"))
    step, objective = trial.step(), trial.objective
    (mine, theirs), total = objective.tap, 0.0
    features = objective.adaptor(step.student.taps[mine]).detach()
    error = (step.teacher.logits - step.batch.fields["target"]).square().sum(1)
    for sample in range(4):
        worth = 1 - (error[sample] - error.min()) / (error.max() - error.min())
        total += float(worth * (features[sample] - step.teacher.taps[theirs][sample]).square().sum()) / 4
    assert float(objective(step)["hint"].detach()) == pytest.approx(total, rel=1e-4)


def test_only_features_of_another_width_pass_an_adaptor():
    for tap, width in ((["fc1", "fc1"], (84, 42)), (["fc2", "fc2"], None)):
        adaptor = Trial.of("plain", objective_of("attentive_hint", tap=tap)).objective.adaptor
        assert [tuple(each.shape) for each in adaptor.parameters()] == ([width, width[:1]] if width else [])


def test_the_pre_pass_keeps_the_extremes_of_all_batches():
    errors = TeacherErrors(AttentionParameters("scaled", **POSE))
    for place in (7.0, 0.5, 3.0):
        teacher = torch.tensor([[place, 0.0, 0.0], [0.0, 0.0, place]])
        errors.observe(Step(Batch(torch.empty(0), {"target": torch.zeros(2, 3)}), Outputs(teacher), Outputs(teacher)))
    assert (float(errors.low), float(errors.high)) == (0.25, 4900.0)


@pytest.mark.parametrize("name", ["attentive_imitation", "attentive_hint"])
def test_a_rotation_of_more_outputs_than_there_are_is_refused(name):
    with pytest.raises(SpecError) as caught:
        Trial.of("plain", objective_of(name, rotations=6))
    assert [problem.pointer for problem in caught.value.problems] == ["/rotations"]


@pytest.fixture(scope="module")
def inputs(engine_inputs, tmp_path_factory):
    """The engine's images with targets (the position of the bright bar and the total brightness), and a partly
    trained teacher."""
    folder = shutil.copytree(engine_inputs, tmp_path_factory.mktemp("targets") / "engine")
    path = folder / "inputs" / "dataset.safetensors"
    data = load_file(path)
    image = data["train.image"]
    target = torch.stack([data["train.label"] / 2 - 0.75, image.float().mean((1, 2, 3)) / 25 - 3.5], dim=1)
    save_file({"train.image": image, "train.target": target}, path, {"class_names": '["place", "brightness"]'})
    torch.manual_seed(13)
    teacher = networks.build("lenet5", 2, read_contract(INPUT), {})
    optimizer = torch.optim.Adam(teacher.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        (teacher((image.float() / 255 - 0.5) / 0.25) - target).square().mean().backward()
        optimizer.step()
    save_file(teacher.state_dict(), folder / "inputs" / "teacher.safetensors")
    return folder


def job_for(folder, **spec) -> Job:
    return job_of(folder, classes=2, task="regression", **spec)


MOVED = {"name": "dataset", "augmentation": "shift"}
SHAPES = {
    "imitation": {"objectives": [{"name": "attentive_imitation"}], "source": MOVED},
    "saputra": {"procedure": SAPUTRA, "source": MOVED},
}


@pytest.mark.parametrize("at", range(1, 5))
@pytest.mark.parametrize("shape", SHAPES)
def test_killed_anywhere_and_restored_bit_equal(shape, at, inputs, tmp_path):
    for name in ("whole", "killed"):
        shutil.copytree(inputs, tmp_path / name)
    spec = SHAPES[shape] | {"training": {"steps": 4}}
    check(job_for(tmp_path / "whole", **spec))
    run_whole(job_for(tmp_path / "whole", **spec))
    run_killed(job_for(tmp_path / "killed", **spec), at, tmp_path / "restored")
    assert same_bits(student_of(tmp_path / "whole"), student_of(tmp_path / "restored"))


def test_saputras_guided_layers_train_first_and_the_rest_afterwards(inputs, tmp_path):
    folder = shutil.copytree(inputs, tmp_path / "job")
    run = Run(job_for(folder, procedure=SAPUTRA, training={"steps": 6}), Channel(io.StringIO()))
    run.execute()
    before = run.lineage.initial(run.lineage.procedure.next((), run.lineage.plan), "student").state_dict()
    first, second = (run.checkpoints.thaw(f"stage/{stage}/student") for stage in ("first", "second"))
    for name, value in before.items():
        guided = name.startswith(("conv", "fc1"))
        assert torch.equal(first[name], value) == (not guided), name
        assert torch.equal(second[name], first[name]) == guided, name
    assert [result.steps for result in run.lineage.history] == [3, 3]
    assert set(run.lineage.history[0].metrics) >= {"attentive_hint/hint"}
    assert set(run.lineage.history[1].metrics) >= {"attentive_imitation/targets", "attentive_imitation/teacher"}


def test_the_extremes_are_those_of_images_that_no_augmentation_has_moved(inputs, tmp_path):
    folder = shutil.copytree(inputs, tmp_path / "job")
    run = Run(job_for(folder, **SHAPES["imitation"]), Channel(io.StringIO()))
    ends = []
    end, run._end_stage = run._end_stage, lambda stage: (ends.append(stage), end(stage))
    run.execute()
    errors = ends[0].members["student"].composition.objectives[0].errors
    data = load_file(folder / "inputs" / "dataset.safetensors")
    teacher = networks.build("lenet5", 2, read_contract(INPUT), {})
    teacher.load_state_dict(load_file(folder / "inputs" / "teacher.safetensors"))
    with torch.no_grad():
        given = teacher.eval()((data["train.image"].float() / 255 - 0.5) / 0.25)
    error = (given - data["train.target"]).square().sum(1)
    torch.testing.assert_close(errors.low, error.min())
    torch.testing.assert_close(errors.high, error.max())


@pytest.mark.parametrize("action", [check, run_whole])
@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        ({"procedure": {"name": "two_stage", "preset": "saputra"}}, "/procedure/guided"),
        ({"procedure": SAPUTRA | {"hint": None}}, "/procedure/hint"),
        ({"procedure": SAPUTRA | {"guided": "relu9"}}, "/procedure/guided"),
        ({"objectives": [{"name": "attentive_hint", "tap": ["fc1", "nothing"]}]}, "/objectives/0/tap/1"),
    ],
)
def test_invalid_parameters_are_refused_with_their_pointer(spec, pointer, action, inputs, tmp_path):
    folder = shutil.copytree(inputs, tmp_path / "job")
    with pytest.raises(SpecError) as caught:
        action(job_for(folder, **spec))
    assert [problem.pointer for problem in caught.value.problems] == [pointer]


@pytest.mark.parametrize("action", [check, run_whole])
@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ({"objectives": [{"name": "attentive_imitation"}]}, "/objectives/0"),
        ({"procedure": SAPUTRA}, "/procedure/first/0"),
        ({"procedure": SAPUTRA | {"first": [{"name": "hint"}]}}, "/procedure/second/0"),
    ],
)
def test_classes_are_not_regressed(spec, place, action, engine_inputs, tmp_path):
    folder = shutil.copytree(engine_inputs, tmp_path / "job")
    with pytest.raises(SpecError) as caught:
        action(job_of(folder, **spec))
    assert [problem.pointer for problem in caught.value.problems] == [f"{place}/name"]
