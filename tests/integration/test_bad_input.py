"""Bad input is refused at once, or its upload is `rejected`, with a problem in a common format that says what to do."""

import io
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save
from sqlalchemy import select
from torch import nn
from torch.nn.utils import parametrizations

from api.access.auth import hash_key, make_key
from api.access.scopes import SCOPES
from distillery_client import Client
from distillery_client.errors import InvalidRequest, JobEnded, NotFound, Refused, Rejected
from models.database import make_engine
from models.records import Inspection, Key
from models.records.columns import new_id
from tests.integration.whole import TEACHER, Whole, eventually
from tests.worker.distillation.trial import Trial, objective_of
from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.networks.ensemble import Ensemble


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory):
    with Whole(tmp_path_factory.mktemp("whole") / "data") as service:
        yield service


@pytest.fixture
def client(whole: Whole):
    with whole.client() as client:
        yield client


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def with_nan(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    weights["fc1.bias"][3] = float("nan")
    return weights


def built(name: str) -> nn.Module:
    return networks.build(name, 4, read_contract(TEACHER["input"]), {})


def with_a_projector() -> bytes:
    trial = Trial.of("plain", objective_of("similarity_head"))
    return save(trial.objective.deploy(trial.student.network, trial.teacher.network).state_dict())


def several() -> bytes:
    return save(Ensemble([built("lenet5"), built("lenet5")], [read_contract(TEACHER["input"])] * 2).state_dict())


def parametrised() -> bytes:
    network = built("lenet5")
    parametrizations.weight_norm(network.fc1)
    return save(network.state_dict())


BAD_FILES = {
    # name: (bytes made from valid weights and a folder, strings that the answer must contain)
    "another module, pickled": (lambda weights, folder: saved(nn.Linear(2, 2)), ["do not fit `lenet5`", "conv1.weight"]),
    "a pickle with a payload": (lambda weights, folder: saved({"w": Payload(folder / "executed")}), ["state_dict"]),
    "a bare pickle with a payload": (lambda weights, folder: pickle.dumps(Payload(folder / "executed")), ["safetensors"]),
    "a truncated file": (lambda weights, folder: save(weights)[:-100], []),
    "NaN weights": (lambda weights, folder: save(with_nan(weights)), ["fc1.bias"]),
    "a student with a projector": (lambda weights, folder: with_a_projector(), ["similarity_head", "Upload a student of other"]),
}  # fmt: skip


def test_an_ensemble_is_read_as_its_first_network_with_a_warning(client: Client, tmp_path: Path):
    findings = sent(client, tmp_path, several())
    assert findings["prefix_removed"] == "0." and findings["left_over"]["count"] == 10
    assert any("would fit too" in words for words in findings["warnings"])


def test_another_network_than_the_named_one_is_taken_with_a_warning(client: Client, tmp_path: Path):
    file = tmp_path / "teacher.bin"
    file.write_bytes(save(built("lenet5_half").state_dict()))
    teacher = client.teachers.send(file, **TEACHER)
    assert teacher["network"] == teacher["findings"]["network"] == "lenet5_half"
    assert any("not those of `lenet5`" in words for words in teacher["findings"]["warnings"])


def test_weights_under_a_weight_norm_are_folded(client: Client, tmp_path: Path):
    assert sent(client, tmp_path, parametrised())["folded"] == ["fc1.weight"]


def sent(client: Client, folder: Path, data: bytes) -> dict[str, Any]:
    """The findings of a teacher with these bytes."""
    file = folder / "teacher.bin"
    file.write_bytes(data)
    return dict(client.teachers.send(file, **TEACHER)["findings"])


@pytest.mark.parametrize("bad", BAD_FILES)
def test_bad_teachers_are_rejected(client: Client, inputs: Path, tmp_path: Path, bad: str):
    make, words = BAD_FILES[bad]
    file = tmp_path / "teacher.bin"
    file.write_bytes(make(load_file(inputs / "teacher.safetensors"), tmp_path))
    with pytest.raises(Rejected) as caught:
        client.teachers.send(file, **TEACHER)
    assert not (tmp_path / "executed").exists()
    problem = caught.value.record["problem"]
    assert {"title", "status", "detail", "errors"} <= set(problem)
    assert problem["errors"]
    text = str(problem)
    assert all(word in text for word in words), text
    assert len(problem["detail"]) > 20


@pytest.fixture(scope="module")
def teacher(whole: Whole, inputs: Path) -> str:
    with whole.client() as client:
        return client.teachers.send(inputs / "teacher.safetensors", **TEACHER)["id"]


BAD_SPECS = {
    # name: (what is added to a valid spec, pointer, a word of the message)
    "an unknown objective": ({"objectives": [{"name": "kdd"}]}, "/objectives/0/name", "kd"),
    "a temperature of -1": ({"objectives": [{"name": "kd", "temperature": -1}]}, "/objectives/0/temperature", "0"),
    "labels without a dataset": ({"objectives": ["cross_entropy", "kd"]}, "/objectives/0", "labels"),
    "an unknown field": ({"studnet": {}}, "/studnet", ""),
    "an unknown network": ({"student": {"network": "resnet99_cifar"}}, "/student/network", "resnet"),
    "another's teacher": ({"teacher": "tch_" + "0" * 32}, "/teacher", ""),
}


@pytest.mark.parametrize("bad", BAD_SPECS)
def test_bad_specs_are_refused_at_once(client: Client, teacher: str, bad: str):
    change, pointer, word = BAD_SPECS[bad]
    with pytest.raises(InvalidRequest) as caught:
        client.jobs.submit({"teacher": teacher, "student": {"network": "lenet5_half"}, **change})
    assert caught.value.status == 422
    assert [error for error in caught.value.errors if error["pointer"] == pointer and word in error["message"]], (
        caught.value.errors
    )


def test_errors_found_by_building_networks_fail_the_job_with_the_same_pointers(client: Client, teacher: str):
    taps = {"name": "attention_transfer", "taps": [["conv7", "conv1"]]}
    job = client.jobs.submit({"teacher": teacher, "student": {"network": "lenet5_half"}, "objectives": [taps]})
    with pytest.raises(JobEnded) as caught:
        client.jobs.wait(job["id"], 60)
    ended = client.jobs.get(job["id"])
    assert (ended["status"], ended["phase"]) == ("failed", "validating")
    assert caught.value.errors[0]["pointer"] == "/objectives/0/taps/0/0"
    assert "conv1" in caught.value.errors[0]["message"]


def test_a_dry_run_builds_the_networks(client: Client, teacher: str):
    spec, before = {"teacher": teacher, "student": {"network": "lenet5_half"}}, list(client.jobs.list())
    found = client.jobs.validate(spec)
    assert found["checked"] == ["spec", "networks"] and found["unchecked"] is None
    assert found["facts"]["student"]["parameters"] > 0
    taps = {"name": "attention_transfer", "taps": [["conv7", "conv1"]]}
    with pytest.raises(InvalidRequest) as caught:
        client.jobs.validate(spec | {"objectives": [taps]})
    assert caught.value.errors[0]["pointer"] == "/objectives/0/taps/0/0"
    assert list(client.jobs.list()) == before


def test_a_dry_run_is_answered_even_if_its_worker_is_killed(whole: Whole, client: Client, teacher: str):
    killed = threading.Event()

    def kill() -> None:
        eventually(lambda: running_checks(whole), "an inspect worker has claimed the check")
        whole.kill("inspect")
        whole.start("inspect")
        killed.set()

    killer = threading.Thread(target=kill)
    killer.start()
    spec = {"teacher": teacher, "student": {"network": "lenet5_half"}}
    found = client.jobs.validate(spec, wait_seconds=60)
    killer.join()
    assert killed.is_set() and found["checked"] == ["spec", "networks"], found
    assert rows_of_checks(whole) == []


def rows_of_checks(whole: Whole) -> list[str]:
    engine = make_engine(f"sqlite:///{whole.data / 'distillery.db'}")
    with engine.begin() as connection:
        found = connection.scalars(select(Inspection.status).where(Inspection.kind == "check")).all()
    engine.dispose()
    return list(found)


def running_checks(whole: Whole) -> bool:
    return "running" in rows_of_checks(whole)


def test_a_dataset_that_does_not_fit_fails_the_job_that_waits_for_it(client: Client, teacher: str, tmp_path: Path):
    """The dataset is unknown at submission; its inspection finds seven classes for a teacher of four."""
    np.savez(tmp_path / "seven.npz", x_train=np.zeros((14, 16, 16), np.uint8), y_train=np.arange(14) % 7)
    dataset = client.datasets.create(name="seven")
    job = client.jobs.submit({"teacher": teacher, "student": {"network": "lenet5_half"}, "dataset": dataset["id"]})
    assert "waits for the bytes" in job["reason"]
    client.datasets.upload(dataset, tmp_path / "seven.npz")
    with pytest.raises(JobEnded) as caught:
        client.jobs.wait(job["id"], 60)
    assert "/objectives/1" in {error["pointer"] for error in caught.value.errors}
    assert "the teacher has 4 classes and the student 7" in str(caught.value.errors)


def test_ids_of_other_keys_are_not_found(whole: Whole, client: Client, teacher: str):
    key = make_key()
    engine = make_engine(f"sqlite:///{whole.data / 'distillery.db'}")
    with engine.begin() as connection:
        values = {"id": new_id("key"), "name": "other", "hash": hash_key(key), "scopes": list(SCOPES)}
        connection.execute(Key.__table__.insert().values(**values))
    engine.dispose()
    job = client.jobs.submit({"teacher": teacher, "student": {"network": "lenet5_half"}, "training": {"steps": 1}})
    with Client(whole.url, key) as other:
        for call in (
            lambda: other.teachers.get(teacher),
            lambda: other.teachers.delete(teacher),
            lambda: other.jobs.get(job["id"]),
            lambda: other.jobs.cancel(job["id"]),
            lambda: list(other.artifacts.list(job["id"])),
        ):
            with pytest.raises(NotFound):
                call()
        with pytest.raises(Refused) as caught:
            other.jobs.submit({"teacher": teacher, "student": {"network": "lenet5_half"}})
        assert caught.value.errors[0]["pointer"] == "/teacher"
    client.jobs.cancel(job["id"])
