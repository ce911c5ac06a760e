"""Mutual learning: both update orders of the cohort against steps taken by hand, and the choice of the job's
student."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from tests.worker.distillation.procedures.plans import plan_of, procedure_of
from tests.worker.distillation.procedures.trained import CE, HALF, KD, LENET, report_of, run_in, taught, weights_of
from worker.distillation.check import check
from worker.distillation.errors import SpecError
from worker.distillation.source import Position

MUTUAL = {"name": "mutual", "weight": 1.0}
PLAIN = {"steps": 1, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "learning_rate": 0.5}


def step_by_hand(network, image, label, peers):
    """One step of gradient descent on cross-entropy and the mean divergence from the peers; returns the new
    predictions."""
    log_p = network(image).log_softmax(1)
    divergences = [(q * (q.log() - log_p)).sum(1).mean() for q in peers]
    loss = F.nll_loss(log_p, label) + sum(divergences) / len(divergences)
    for parameter, slope in zip(
        network.parameters(), torch.autograd.grad(loss, list(network.parameters())), strict=True
    ):
        parameter.data -= PLAIN["learning_rate"] * slope
    with torch.no_grad():
        return network(image).softmax(1)


def by_hand(networks, image, label, sequential):
    with torch.no_grad():
        predictions = {name: network(image).softmax(1) for name, network in networks.items()}
    for name, network in networks.items():
        after = step_by_hand(network, image, label, [predictions[other] for other in networks if other != name])
        if sequential:
            predictions[name] = after


@pytest.mark.parametrize("update", ["sequential", "simultaneous"])
def test_a_step_equals_one_by_hand_with_the_same_update_order_only(engine_inputs, tmp_path, update):
    procedure = {"name": "mutual", "peers": [HALF, LENET], "update": update}
    done = run_in(engine_inputs, tmp_path / "job", procedure, teacher=False, objectives=[CE, MUTUAL], training=PLAIN)
    stage = done.lineage.procedure.next((), done.lineage.plan)
    batch = done.source.batch(Position(0, 0, 0, 0.0), {})
    for way in ("sequential", "simultaneous"):
        networks = {name: done.lineage.initial(stage, name) for name in stage.members}
        by_hand(networks, batch.image, batch.fields["label"], way == "sequential")
        close = {
            name: all(
                torch.allclose(weight, done.checkpoints.thaw(f"stage/distil/{name}")[key], rtol=1e-4, atol=1e-6)
                for key, weight in network.state_dict().items()
            )
            for name, network in networks.items()
        }
        assert close["student"]  # the first reads the others' old predictions with both orders
        assert (close["peer_1"] and close["peer_2"]) == (way == update)


def test_the_student_starts_as_in_plain_training_and_its_peers_from_other_seeds(engine_inputs, tmp_path):
    done = run_in(engine_inputs, tmp_path / "job", {"name": "mutual"}, teacher=False, objectives=[CE, MUTUAL])
    plain = run_in(engine_inputs, tmp_path / "plain", {"name": "direct"}, teacher=False, objectives=[CE])
    stages = [each.lineage.procedure.next((), each.lineage.plan) for each in (done, plain)]
    ours, peer, theirs = (
        done.lineage.initial(stages[0], "student").conv1.weight,
        done.lineage.initial(stages[0], "peer_1").conv1.weight,
        plain.lineage.initial(stages[1], "student").conv1.weight,
    )
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, peer)


def test_a_cohort_may_have_a_teacher_too(engine_inputs, tmp_path):
    done = run_in(engine_inputs, tmp_path / "job", {"name": "mutual"}, objectives=[CE, KD, MUTUAL])
    (result,) = done.lineage.history
    assert {"student/kd/kd", "peer_1/kd/kd", "student/mutual/mutual", "peer_1/mutual/mutual"} <= result.metrics.keys()


@pytest.mark.parametrize("selection", ["last", "best"])
def test_a_peer_can_ship_under_its_own_name(engine_inputs, tmp_path, selection):
    folder = tmp_path / "job"
    procedure = {"name": "mutual", "peers": [LENET, HALF], "student_member": 1}
    training = {"validation_fraction": 0.25, "selection": selection}
    done = run_in(
        engine_inputs, folder, procedure, teacher=False, objectives=[CE, MUTUAL], exports=["safetensors", "onnx"],
        evaluation={"split": "train"}, training=training,
    )  # fmt: skip
    best = done.state.best
    assert (best is not None) == (selection == "best")
    student = weights_of(folder)
    expected = best.weights if best else done.checkpoints.thaw("stage/distil/peer_1")
    assert all(torch.equal(student[name], weight) for name, weight in expected.items())
    with safe_open(folder / "output" / "student.safetensors", "pt") as file:
        assert file.metadata()["network"] == "lenet5"
    report = report_of(folder)
    assert report["student"]["network"] == "lenet5"
    assert report["chosen_weights"]["checkpoint"].startswith("last" if selection == "last" else "epoch")
    assert [(kept["name"], kept["network"]) for kept in report["kept"]] == [
        ("cohort_student", "lenet5_half"), ("peer_2", "lenet5_half"),
    ]  # fmt: skip
    names = [event["name"] for event in done.events if event["event"] == "artifact"]
    assert names == [
        "student.safetensors", "student.onnx", "student.py", "cohort_student.safetensors", "cohort_student.py",
        "peer_2.safetensors", "peer_2.py",
        "README.md", "student.json", "report.json",
    ]  # fmt: skip
    kept = weights_of(folder, "cohort_student")
    assert all(
        torch.equal(kept[name], weight) for name, weight in done.checkpoints.thaw("stage/distil/student").items()
    )
    assert json.dumps(report)  # plain values


@pytest.mark.parametrize(
    ("procedure", "objectives", "pointer"),
    [
        ({"name": "mutual", "student_member": 2}, [MUTUAL], "/procedure/student_member"),
        ({"name": "mutual", "peers": []}, [MUTUAL], "/procedure/peers"),
        ({"name": "mutual", "peers": [HALF, {"network": "lenet6"}]}, [MUTUAL], "/procedure/peers/1/network"),
        (
            {"name": "mutual", "peers": [{"network": "mlp", "options": {"hidden": [0]}}]}, [MUTUAL],
            "/procedure/peers/0/options/hidden",
        ),
        (
            {"name": "mutual", "peers": [{"network": "torchvision/alexnet"}]}, [MUTUAL], "/procedure/peers/0/network",
        ),
        ({"name": "mutual"}, [CE, KD], "/objectives/1"),
        ({"name": "direct"}, [CE, MUTUAL], "/objectives/1/name"),
    ],
)  # fmt: skip
def test_invalid_parameters_are_refused_with_their_pointer(engine_inputs, procedure, objectives, pointer):
    with pytest.raises(SpecError) as caught:
        check(taught(engine_inputs, procedure, teacher=False, objectives=objectives))
    assert [problem.pointer for problem in caught.value.problems] == [pointer]


def test_transforms_and_given_weights_are_the_students_alone():
    stage = procedure_of("mutual").next((), plan_of())
    assert (stage.members["peer_1"].initial, stage.members["peer_1"].transforms) == (None, ())
    assert stage.members["student"] == plan_of().student
