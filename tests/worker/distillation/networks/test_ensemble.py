"""Ensembles of teachers: the mean of their outputs, their inputs, their taps, and whole jobs with them."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tests.worker.distillation.killed_runs import INPUT, job_of, run_killed, run_whole, same_bits, student_of
from worker.distillation import networks
from worker.distillation.check import check
from worker.distillation.contract import read_contract
from worker.distillation.errors import SpecError
from worker.distillation.introspection.taps import Tapped, penultimate
from worker.distillation.job import Job
from worker.distillation.losses.logits import softened_kl
from worker.distillation.networks.ensemble import Ensemble, mean_of
from worker.distillation.networks.reused_classifier import classifier_of
from worker.distillation.objectives.features.fsp import first_of

CONTRACT = read_contract(INPUT)
OTHER = {**INPUT, "mean": [0.1], "std": [0.7]}


def built(*names, classes=4):
    torch.manual_seed(0)
    return [networks.build(name, classes, CONTRACT, {}).eval() for name in names]


def images(count=3):
    return torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.9, 0.1]])
def test_at_its_temperature_an_ensemble_gives_the_mean_of_its_members_softened_probabilities(temperature, weights):
    logits = 5 * torch.randn(2, 6, 4, dtype=torch.float64)
    slowly = torch.zeros(6, 4, dtype=torch.float64)
    for weight, member in zip(weights, logits, strict=True):
        for row in range(6):
            powers = torch.exp(member[row] / temperature)
            slowly[row] += weight * powers / powers.sum()
    combined = mean_of(logits, torch.tensor(weights, dtype=torch.float64), "probabilities", temperature)
    torch.testing.assert_close(torch.softmax(combined / temperature, 1), slowly)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_mean_of_logits_is_the_geometric_mean_of_probabilities_at_every_temperature(temperature):
    logits, weights = torch.randn(3, 5, 4, dtype=torch.float64), torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    powers = torch.softmax(logits / temperature, 2) ** weights[:, None, None]
    geometric = powers.prod(0) / powers.prod(0).sum(1, keepdim=True)
    combined = mean_of(logits, weights, "logits", 7.0)
    torch.testing.assert_close(torch.softmax(combined / temperature, 1), geometric)


def test_the_ensemble_gives_the_mean_at_the_temperature_of_kd():
    members = 8 * torch.eye(4, dtype=torch.float64)[:2, None]  # each is confident of another class
    student = torch.randn(1, 4, dtype=torch.float64)
    mean = torch.softmax(members / 4, 2).mean(0)
    wanted = 16 * (mean * (mean.log() - torch.log_softmax(student / 4, 1))).sum(1).mean()
    half = torch.full((2,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(softened_kl(student, mean_of(members, half, "probabilities", 4.0), 4.0), wanted)
    softened_afterwards = softened_kl(student, mean_of(members, half, "probabilities", 1.0), 4.0)
    assert abs(softened_afterwards - wanted) > 0.1 * wanted


def test_confident_members_that_disagree_give_finite_logits():
    combined = mean_of(torch.tensor([[[1e4, 0.0]], [[0.0, 1e4]]]), torch.full((2,), 0.5), "probabilities", 1.0)
    torch.testing.assert_close(torch.softmax(combined, 1), torch.full((1, 2), 0.5))


def test_weights_need_not_sum_to_one():
    one, two = built("lenet5", "mlp")
    whole = Ensemble([one, two], [CONTRACT] * 2, "logits", [3, 1])
    x = images()
    torch.testing.assert_close(whole(x), 0.75 * one(x) + 0.25 * two(x))


def test_each_member_reads_images_normalised_by_its_own_contract():
    one, two = built("lenet5", "mlp")
    other = read_contract(OTHER)
    pixels = torch.randint(0, 256, (3, 1, 16, 16)) / 255
    whole = Ensemble([one, two], [CONTRACT, other], "logits")
    wanted = (one((pixels - 0.5) / 0.25) + two((pixels - 0.1) / 0.7)) / 2
    torch.testing.assert_close(whole((pixels - 0.5) / 0.25), wanted, rtol=1e-4, atol=1e-5)


def test_members_that_read_other_shapes_are_refused():
    with pytest.raises(SpecError, match=r"1 x 16 x 16.*member 1 reads 1 x 32 x 32") as caught:
        Ensemble(built("mlp", "mlp"), [CONTRACT, replace(CONTRACT, height=32, width=32)])
    assert [problem.pointer for problem in caught.value.problems] == ["/teacher"]


def test_taps_are_named_by_member_and_defaults_are_those_of_the_first():
    tapped = Tapped(Ensemble(built("lenet5", "mlp", "lenet5_half"), [CONTRACT] * 3), images(2))
    alone = Tapped(built("lenet5")[0], images(2))
    assert tapped.map.stages == tuple(f"0.{tap}" for tap in alone.map.stages)
    assert penultimate(tapped) == f"0.{penultimate(alone)}"
    half = Tapped(built("lenet5_half")[0], images(2))
    assert {tap: tapped.map.shape(f"2.{tap}") for tap in half.map.shapes} == half.map.shapes


def test_a_tap_captures_the_activation_of_its_member():
    members = built("lenet5", "lenet5_half")
    tapped, alone = Tapped(Ensemble(members, [CONTRACT] * 2), images(2)), Tapped(members[1], images(2))
    tap = alone.map.stages[-1]
    tapped.request([f"1.{tap}"])
    alone.request([tap])
    torch.testing.assert_close(tapped(images()).taps[f"1.{tap}"], alone(images()).taps[tap])


def test_gradients_pass_to_the_image():
    x = images().requires_grad_(True)
    Ensemble(built("lenet5", "mlp"), [CONTRACT, read_contract(OTHER)], temperature=4.0)(x).square().sum().backward()
    assert x.grad is not None and bool((x.grad.abs().flatten(1).sum(1) > 0).all())


# Whole jobs

TAUGHT_BY_BOTH = {
    "teacher": {"members": ["tch_a", "job_b"], "combine": "probabilities", "weights": None, "temperature": 4.0},
    "objectives": [
        {"name": "cross_entropy", "weight": 0.1},
        {"name": "kd", "weight": 0.9},
        {"name": "attention_transfer", "weight": 10.0, "taps": [["maxpool2", "1.maxpool2"]]},
    ],
}


@pytest.fixture
def two_teachers(engine_inputs, tmp_path):
    """Inputs with a second teacher that has another architecture and another input contract."""
    folder = tmp_path / "whole"
    shutil.copytree(engine_inputs, folder)
    torch.manual_seed(5)
    second = networks.build("lenet5_half", 4, read_contract(OTHER), {})
    save_file(second.state_dict(), folder / "inputs" / "second.safetensors")
    return folder


def ensemble_job(folder, second=None, **spec) -> Job:
    job = job_of(folder, **(TAUGHT_BY_BOTH | spec))
    other = {"id": "job_b", "network": "lenet5_half", "options": {}, "classes": 4, "class_names": [], "input": OTHER,
             "weights": "inputs/second.safetensors"}  # fmt: skip
    given = [job.values["teacher"] | {"id": "tch_a"}, other | (second or {})]
    return replace(job, values=job.values | {"teacher": None, "teachers": given})


@pytest.mark.parametrize("at", [1, 3, 5])
def test_killed_and_restored_bit_equal(two_teachers, tmp_path, at):
    run_whole(ensemble_job(two_teachers))
    shutil.copytree(two_teachers / "inputs", tmp_path / "killed" / "inputs")
    run_killed(ensemble_job(tmp_path / "killed"), at, tmp_path / "restored")
    assert same_bits(student_of(two_teachers), student_of(tmp_path / "restored"))


def test_the_report_names_the_teachers(two_teachers):
    run_whole(ensemble_job(two_teachers))
    teacher = json.loads((two_teachers / "output" / "report.json").read_text())["teacher"]
    assert [(member["id"], member["network"]) for member in teacher["members"]] == [
        ("tch_a", "lenet5"), ("job_b", "lenet5_half"),
    ]  # fmt: skip
    sizes = [(two_teachers / "inputs" / f"{name}.safetensors").stat().st_size for name in ("teacher", "second")]
    assert teacher["file_bytes"] == sum(sizes)
    alone = [networks.build(name, 4, CONTRACT, {}) for name in ("lenet5", "lenet5_half")]
    assert teacher["parameters"] == sum(p.numel() for network in alone for p in network.parameters())


def test_the_check_builds_all_teachers_without_weights(tmp_path):
    facts = check(ensemble_job(tmp_path))
    assert facts["teacher"]["parameters"] > facts["student"]["parameters"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"classes": 5}, "all networks must have the same classes: the first has 4 classes, another has 5"),
        ({"input": {**OTHER, "height": 32, "width": 32}}, "member 1 reads 1 x 32 x 32"),
    ],
)
def test_teachers_that_cannot_be_combined_are_refused(tmp_path, second, message):
    with pytest.raises(SpecError, match=message) as caught:
        check(ensemble_job(tmp_path, second))
    assert {problem.pointer for problem in caught.value.problems} == {"/teacher"}


def test_weights_of_another_network_are_refused_as_a_user_error(two_teachers):
    with pytest.raises(SpecError, match="job_b does not contain weights of mlp"):
        run_whole(ensemble_job(two_teachers, {"network": "mlp"}))


def test_a_job_file_must_describe_every_teacher(tmp_path):
    job = ensemble_job(tmp_path)
    del job.values["teachers"][1]["weights"]
    path = tmp_path / "job.json"
    path.write_text(json.dumps(dict(job.values)))
    with pytest.raises(SpecError) as caught:
        Job.read(path)
    assert [problem.pointer for problem in caught.value.problems] == ["/teachers/1/weights"]


def test_defaults_are_found_in_the_first_member():
    whole = Tapped(Ensemble(built("lenet5", "lenet5_half"), [CONTRACT] * 2), images(2))
    alone = Tapped(built("lenet5")[0], images(2))
    assert classifier_of(whole.map, "teacher") == f"0.{classifier_of(alone.map, 'teacher')}"
    last = alone.map.stages[-1]
    assert first_of(whole.map, f"0.{last}") == f"0.{first_of(alone.map, last)}"


@pytest.mark.parametrize("action", [check, run_whole])
@pytest.mark.parametrize(
    ("name", "pointer", "of_the_first"),
    [
        (
            "attention_transfer",
            "/objectives/0/taps",
            [["relu1", "0.relu1"], ["maxpool1", "0.maxpool1"], ["relu2", "0.relu2"]],
        ),
        ("fsp", "/objectives/0/taps", None),
        ("crd", "/objectives/0/tap", ["fc2:in", "0.fc2:in"]),
    ],
)
def test_features_of_several_teachers_require_named_taps(two_teachers, action, name, pointer, of_the_first):
    """The order of the teachers does not decide whose features are compared."""
    with pytest.raises(SpecError, match="each of several teachers has features of its own") as caught:
        action(ensemble_job(two_teachers, objectives=[{"name": name}]))
    (problem,) = caught.value.problems
    assert problem.pointer == pointer
    if of_the_first:
        assert problem.message.endswith(json.dumps(of_the_first))
        run_whole(ensemble_job(two_teachers, objectives=[{"name": name, pointer.rpartition("/")[2]: of_the_first}]))


def test_in_the_task_embedding_the_output_is_that_of_the_ensemble(tmp_path):
    check(ensemble_job(tmp_path, task="embedding", objectives=[{"name": "relational"}]))


def test_images_are_synthesised_from_an_ensemble(two_teachers):
    source = {"name": "dafl", "generator_width": 8, "latent": 8, "generator_batch": 8, "pool_images": 16}
    job = ensemble_job(two_teachers, source=source, objectives=[{"name": "kd"}])
    run_whole(replace(job, values=job.values | {"dataset": None}))
    report = json.loads((two_teachers / "output" / "report.json").read_text())
    assert report["without_data"]["samples"] > 0


def test_the_classifier_of_an_ensemble_cannot_be_reused(two_teachers):
    with pytest.raises(SpecError, match=r"the teacher's logits are not the output of its last linear layer '0\.fc2'"):
        run_whole(ensemble_job(two_teachers, objectives=[{"name": "similarity_head"}]))
