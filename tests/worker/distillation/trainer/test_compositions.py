"""Random objectives with random procedures: refused with a pointer into the spec, or killed anywhere and restored bit-equal."""

import io
import random
import shutil
from functools import cache

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.worker.distillation.killed_runs import INPUT, run_killed, same_bits
from tests.worker.distillation.procedures.trained import taught
from tests.worker.distillation.trial import objective_of, variants
from worker.distillation import networks, registry
from worker.distillation.check import check
from worker.distillation.contract import read_contract
from worker.distillation.errors import SpecError
from worker.distillation.job import Job
from worker.distillation.process.event_pipe import Channel
from worker.distillation.run import Run
from worker.distillation.trainer import stage_metrics

PAIRS = {"plain": ("lenet5", "lenet5_half"), "residual": ("resnet14_cifar", "resnet8_cifar")}
MLP, LENET = {"network": "mlp", "options": {"hidden": [8]}}, {"network": "lenet", "options": {}}
SPACE = [{"network": "lenet", "options": {"first": [2, 4]}}, {"network": "mlp", "options": {"hidden": [[8], [4, 4]]}}]
LOWERED = [{"name": "quantise", "bits": 3}]
TEACHES = ("early_stopped, taught here", "route", "greedy route")
"""Procedures that train a teacher of their own."""
KINDS = [
    "direct", "two_stage", "mutual", "born_again", "assistant", "early_stopped", "architecture_search", "apprentice", *TEACHES,
]  # fmt: skip
SHORT, LONG = range(7), range(7, 160)


def drawn_from(seed):
    """Parts of a spec: two or three objectives with parameters and weights, a procedure, and training settings."""
    draw = random.Random(seed)
    names = [name for name in registry.names("objectives") if usable(name)]
    objectives = [
        {"name": name, "weight": weight(draw), **draw.choice(forms(name))}
        for name in draw.sample(names, draw.choice([2, 2, 3]))
    ]
    if draw.random() < 0.7:
        objectives.append({"name": "cross_entropy", "weight": weight(draw)})
    kind = draw.choice(KINDS)
    procedure = {
        "direct": {"name": "direct"},
        "two_stage": {"name": "two_stage", "first": objectives[:1], "fraction": 0.5},
        "mutual": {"name": "mutual", "peers": [LENET], "update": draw.choice(["sequential", "simultaneous"])},
        "born_again": {"name": "born_again", "generations": 2},
        "assistant": {"name": "assistant", "assistants": [LENET]},
        "early_stopped": {"name": "early_stopped", "stop": 0.6},
        "architecture_search": {"name": "architecture_search", "space": SPACE, "trials": 2, "trial_fraction": 0.5},
        "apprentice": {"name": "apprentice", "scheme": draw.choice(["b", "c"])},
        "early_stopped, taught here": {
            "name": "early_stopped", "teacher": LENET, "teacher_epochs": 2, "teacher_stop": 0.5, "stop": 0.6,
        },
        "route": {"name": "route", "teacher": LENET, "teacher_epochs": 2, "anchors": 2},
        "greedy route": {"name": "route", "teacher": LENET, "teacher_epochs": 3, "anchors": 3, "choice": "greedy"},
    }[kind]  # fmt: skip
    if kind == "mutual" and draw.random() < 0.7:
        objectives.append({"name": "mutual", "weight": 1.0})
    training = {"steps": 3, "learning_rate": 1e-3, "optimizer": draw.choice(["sgd", "adam", "adamw"])}
    if kind in ("greedy route", "architecture_search") or draw.random() < 0.2:
        training |= {"validation_fraction": 0.25, "selection": draw.choice(["last", "best"])}
    source = {"name": "dataset", "augmentation": draw.choice(["none", "standard"]), "same_class_images": 1}
    spec = {"objectives": objectives, "training": training, "source": source}
    if kind == "apprentice":
        spec["transforms"] = LOWERED
    return draw, draw.choice(["plain", "plain", "residual"]), procedure, kind not in TEACHES, spec


@cache
def usable(name):
    """Whether an objective works on these images, which have class labels and no privileged images."""
    needs = registry.find("objectives", name).needs
    return "classification" in needs.tasks and "privileged" not in needs.fields and name != "mutual"


@cache
def forms(name):
    """The variants of an objective that support classification."""
    return [each for each in variants(name) if "classification" in objective_of(name, **each).active_needs.tasks]


def weight(draw):
    number = draw.choice([0.5, 1.0])
    return draw.choice(
        [number, {"schedule": draw.choice(["linear", "cosine", "until"]), "start": number, "until": 0.7}]
    )


@pytest.fixture(scope="module")
def inputs(engine_inputs, tmp_path_factory):
    """The inputs of each pair of networks."""
    residual = tmp_path_factory.mktemp("residual") / "job"
    shutil.copytree(engine_inputs, residual)
    torch.manual_seed(0)
    teacher = networks.build(PAIRS["residual"][0], 4, read_contract(INPUT), {})
    save_file(teacher.state_dict(), residual / "inputs" / "teacher.safetensors")
    return {"plain": engine_inputs, "residual": residual}


class Counted(Run):
    """Counts the steps after which it could be killed."""

    steps = 0

    def after_step(self, run):
        super().after_step(run)
        self.steps += 1


def job_of(folder, pair, procedure, teacher, spec):
    job = taught(folder, procedure, teacher=teacher, student={"network": PAIRS[pair][1], "options": {}}, **spec)
    given = job.values["teacher"] and {**job.values["teacher"], "network": PAIRS[pair][0]}
    return Job({**job.values, "teacher": given}, folder)


def files_of(folder):
    return {path.name: load_file(path) for path in sorted((folder / "output").glob("*.safetensors"))}


def killed_somewhere(seed, inputs, folder):
    """Whether the composition of a seed is valid; a valid one is killed once, and must end with the same bits."""
    draw, pair, *rest = drawn_from(seed)
    shutil.copytree(inputs[pair], folder / "whole")
    try:
        check(job_of(folder / "whole", pair, *rest))
    except SpecError as refusal:
        assert all(problem.pointer.startswith("/") for problem in refusal.problems)
        return False
    whole = Counted(job_of(folder / "whole", pair, *rest), Channel(io.StringIO()))
    whole.execute()
    shutil.copytree(inputs[pair], folder / "killed")
    run_killed(job_of(folder / "killed", pair, *rest), draw.randint(1, whole.steps), folder / "restored")
    expected, restored = files_of(folder / "whole"), files_of(folder / "restored")
    assert expected.keys() == restored.keys()
    assert [name for name in expected if not same_bits(expected[name], restored[name])] == []
    return True


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Constant latencies, and no teacher check."""
    monkeypatch.setattr(stage_metrics, "latency", lambda network, contract, threads: {"milliseconds": 1.0})
    monkeypatch.setattr("worker.distillation.run.check_teacher", lambda *given: None)


@pytest.mark.parametrize("seed", SHORT)
def test_a_few_random_compositions(seed, inputs, tmp_path):
    tried = next(
        number for number in range(50) if killed_somewhere(1000 * seed + number, inputs, tmp_path / str(number))
    )
    assert tried < 50


@pytest.mark.slow
@pytest.mark.parametrize("seed", LONG)
def test_many_random_compositions(seed, inputs, tmp_path):
    test_a_few_random_compositions(seed, inputs, tmp_path)


@pytest.mark.slow
def test_every_objective_and_every_procedure_is_drawn():
    drawn = [drawn_from(1000 * seed) for seed in LONG]
    objectives = {each["name"] for *_, spec in drawn for each in spec["objectives"]}
    assert objectives == {name for name in registry.names("objectives") if usable(name)} | {"mutual"}
    with_data = set(registry.names("procedures")) - {"source_trials"}
    assert {procedure["name"] for _, _, procedure, *_ in drawn} == with_data
