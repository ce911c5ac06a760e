import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from distillery_client import pack
from distillery_client.own_network import CannotPack, network_of
from distillery_client.packed_file import packed_program
from tests.client.scripted import Response, Scripted
from tests.client.test_command_line import call
from worker.distillation.programs import load

ROOT = Path(__file__).parents[2]
SOURCE = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

def text():
    return "no network"
"""
OPTIONS = ["--input", "3x8x8", "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2"]
CONTRACT = {"channels": 3, "height": 8, "width": 8, "mean": [0.5] * 3, "std": [0.2] * 3}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network's code in it, in which the command is called."""
    name = f"net_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return tmp_path / name


def test_the_client_packs_as_the_engine_does() -> None:
    folders = ("client/distillery_client/packing", "worker/distillation/programs/packing")
    ours, theirs = ({file.name: file.read_bytes() for file in (ROOT / each).glob("*.py")} for each in folders)
    assert ours == theirs and "translation.py" in ours


def test_a_packed_network_is_uploaded_without_saying_what_it_is(server: Scripted, folder: Path) -> None:
    network = network_of(f"{folder.name}:build")
    torch.save({"state_dict": network.state_dict()}, "weights.pth")
    result = call(
        server, "pack", f"{folder.name}:build", "weights.pth", *OPTIONS, "--class-names", "a,b", "-o", "net.safetensors"
    )
    assert result.exit_code == 0, result.stderr
    again = load(Path("net.safetensors"))
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in network.state_dict().items())
    ready = {"id": "tch_1", "status": "ready", "upload": "http://x/v1/teachers/tch_1/content"}
    server.respond_with(*[Response(201 if number == 0 else 200, json.dumps(ready).encode()) for number in range(4)])
    result = call(server, "--json", "teachers", "upload", "net.safetensors")
    assert result.exit_code == 0, result.stderr
    body = json.loads(server.requests[0].body)
    assert body == {
        "name": "net", "network": "program", "classes": 2, "class_names": ["a", "b"], "input": CONTRACT, "options": {},
    }  # fmt: skip


def test_an_onnx_file_needs_its_contract(server: Scripted, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\x08\x09")
    result = call(server, "teachers", "upload", str(tmp_path / "net.onnx"), "--classes", "2")
    assert result.exit_code == 2 and "--input" in result.stderr


def test_weights_without_a_network_are_sent_for_the_inspection_to_find_it(server: Scripted, tmp_path: Path) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "w.safetensors")
    ready = {"id": "tch_1", "status": "ready", "upload": "http://x/v1/teachers/tch_1/content"}
    server.respond_with(*[Response(201 if number == 0 else 200, json.dumps(ready).encode()) for number in range(4)])
    result = call(server, "teachers", "upload", str(tmp_path / "w.safetensors"), *OPTIONS)
    assert result.exit_code == 0, result.stderr
    assert json.loads(server.requests[0].body) == {"name": "w", "input": CONTRACT, "options": {}}


@pytest.mark.parametrize("factory", ["nothing:build", "{}:nothing", "{}:text", "{}"])
def test_what_makes_no_network_says_so(server: Scripted, folder: Path, factory: str) -> None:
    result = call(server, "pack", factory.format(folder.name), *OPTIONS, "-o", "net.safetensors")
    assert result.exit_code == 1 and "Traceback" not in result.stderr
    assert not Path("net.safetensors").exists()


def test_weights_that_do_not_fit_say_so(folder: Path) -> None:
    torch.save({"other": torch.ones(1)}, "weights.pth")
    with pytest.raises(CannotPack, match="cannot be loaded"):
        network_of(f"{folder.name}:build", Path("weights.pth"))


def test_packing_in_python_gives_what_the_file_says(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    found = pack(network, tmp_path / "net.safetensors", **CONTRACT, student=True)
    program = packed_program(tmp_path / "net.safetensors")
    assert program is not None and found == {name: program[name] for name in ("classes", "class_names", "input")}
    assert set(program["graphs"]) == {"eval", "train"}
    with pytest.raises(CannotPack, match="class names"):
        pack(network, tmp_path / "other.safetensors", **CONTRACT, class_names=["a"])
