"""The selection of a file's tensors for a network, from the file to the findings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.errors import UploadError
from worker.distillation.uploads.inspect_upload import inspect
from worker.distillation.uploads.selection import common_prefix, is_averaged

CONTRACT = InputContract(1, 8, 8, (0.5,), (0.2,))
INPUT = {"channels": 1, "height": 8, "width": 8, "mean": [0.5], "std": [0.2]}
State = dict[str, Tensor]


def network() -> nn.Module:
    return networks.build("mlp", 3, CONTRACT)


def read(folder: Path, value: Any, **said: Any) -> tuple[dict[str, Any], State]:
    """Findings and canonical weights of a teacher upload."""
    torch.save(value, folder / "sent")
    teacher = {"network": "mlp", "options": {}, "classes": 3, "input": INPUT} | said
    answer = inspect({"kind": "teacher", "upload": "sent", "teacher": teacher}, folder)
    return answer["findings"], load_file(folder / answer["path"])


def equal(state: State, expected: State) -> bool:
    return state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in expected)


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "model.",
        "_orig_mod.",
        "backbone.",
        "net.",
        "architecture.backbone.",
        "a.b.c.d.",
        "x.module._orig_mod.",
    ],
)
def test_any_common_prefix_is_removed(tmp_path: Path, prefix: str):
    state = network().state_dict()
    found, taken = read(tmp_path, {"anything": {"at": {"all": prefixed(prefix, state)}}, "best_acc": torch.tensor(0.5)})
    assert equal(taken, state)
    assert (found["read_from"], found["prefix_removed"]) == ("anything.at.all", prefix)
    assert found["container"] == "torch zip" and found["dtype"] == "float32" and found["averaged"] is False
    assert found["left_over"] == {"count": 0, "names": []} and found["warnings"] == []


def test_other_tensors_besides_the_state_dict_do_not_hide_it(tmp_path: Path):
    state = network().state_dict()
    found, taken = read(tmp_path, {"best_acc": torch.tensor(0.5), "queue": torch.ones(9, 9), "model": state})
    assert equal(taken, state) and found["read_from"] == "model"


def test_tensors_that_the_network_does_not_have_are_ignored_with_a_warning(tmp_path: Path):
    state = network().state_dict()
    extra = {"criterion.weight": torch.ones(3), "total_ops": torch.ones(1), "fc1.total_params": torch.ones(1)}
    found, taken = read(tmp_path, {"state_dict": prefixed("model.", state) | extra})
    assert equal(taken, state)
    assert found["left_over"] == {"count": 1, "names": ["criterion.weight"]}
    assert "criterion.weight" in found["warnings"][0]


def test_the_size_of_findings_is_limited(tmp_path: Path):
    extra = {f"{'x' * 400}{number}": torch.ones(1) for number in range(1000)}
    found, _ = read(tmp_path, network().state_dict() | extra)
    assert found["left_over"]["count"] == 1000 and len(str(found)) < 20_000


def test_student_or_teacher_of_a_distillation_checkpoint_can_be_chosen(tmp_path: Path):
    student, teacher = network().state_dict(), network().state_dict()
    both = {"state_dict": prefixed("student.", student) | prefixed("teacher.", teacher)}
    found, taken = read(tmp_path, both)
    assert (
        equal(taken, student)
        and found["also_fits"] == ["state_dict.teacher"]
        and "would fit too" in found["warnings"][1]
    )
    for choice in ("state_dict.teacher",):
        found, taken = read(tmp_path, both, weights=choice)
        assert equal(taken, teacher) and found["also_fits"] == []


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema", "ema_model", "swa_model", "model_averaged"])
def test_averaged_weights_are_read_unless_raw_ones_are_requested(tmp_path: Path, key: str):
    raw, averaged = network().state_dict(), network().state_dict()
    value = {"model": raw, key: prefixed("module.", averaged), "epoch": 3}
    for choice, expected in (("auto", averaged), ("averaged", averaged), (key, averaged), ("raw", raw), ("model", raw)):
        found, taken = read(tmp_path, value, weights=choice)
        assert equal(taken, expected) and found["averaged"] is (expected is averaged)
    found, _ = read(tmp_path, value)
    assert found["read_from"] == key and found["also_fits"] == ["model"]


def test_averaged_weights_alone_are_read_and_named_if_others_are_requested(tmp_path: Path):
    value = {"state_dict_ema": network().state_dict()}
    assert read(tmp_path, value)[0]["averaged"] is True
    for choice in ("raw", "no.such.path"):
        with pytest.raises(UploadError, match="but `state_dict_ema`"):
            read(tmp_path, value, weights=choice)


def test_torchs_own_average(tmp_path: Path):
    net = network()
    average = AveragedModel(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    found, taken = read(tmp_path, {"net": net.state_dict(), "average": average.state_dict()})
    assert equal(taken, net.state_dict()) and found["averaged"] is False, "the average has no updates"
    average.update_parameters(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    found, taken = read(tmp_path, {"net": net.state_dict(), "average": average.state_dict()})
    assert equal(taken, average.module.state_dict()) and found["read_from"] == "average"


def test_the_same_tensors_under_two_names_are_not_alternatives(tmp_path: Path):
    state = network().state_dict()
    found, _ = read(tmp_path, {"model": state, "ema": state})
    assert found["also_fits"] == []


def test_parts_of_a_network_in_separate_mappings_are_joined(tmp_path: Path):
    state = network().state_dict()
    parts: dict[str, State] = {}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    found, taken = read(tmp_path, {"weights": parts})
    assert equal(taken, state) and found["read_from"] == "weights"


def test_weights_of_a_deeper_network_are_refused_for_a_shallower_one(tmp_path: Path):
    reads = INPUT | {"height": 16, "width": 16}
    contract = InputContract(1, 16, 16, (0.5,), (0.2,))
    deep = networks.build("resnet14_cifar", 3, contract).state_dict()
    with pytest.raises(UploadError, match="belong to a larger network") as caught:
        read(tmp_path, {"model": prefixed("module.", deep)}, network="resnet8_cifar", input=reads)
    assert "`resnet14_cifar`" in caught.value.hint


def test_findings_of_whole_networks_name_the_code_that_was_not_run(tmp_path: Path):
    net = network()
    found, taken = read(tmp_path, nn.DataParallel(net))
    assert equal(taken, net.state_dict()) and found["prefix_removed"] == "module."
    assert any(name.endswith("DataParallel") for name in found["not_run"])


def test_the_hint_for_integer_weights_does_not_name_the_refused_network(tmp_path: Path):
    state = network().state_dict()
    name = next(iter(state))
    with pytest.raises(UploadError, match="not floating-point") as caught:
        read(tmp_path, state | {name: state[name].to(torch.int8)})
    assert "set `network`" not in caught.value.hint and "float" in caught.value.hint


def test_half_precision_is_reported_and_converted(tmp_path: Path):
    state = {name: tensor.half() for name, tensor in network().state_dict().items()}
    found, taken = read(tmp_path, state)
    assert found["dtype"] == "float16" and all(tensor.dtype == torch.float32 for tensor in taken.values())


def test_findings_of_a_file_of_weights_say_what_was_read_by_choice(tmp_path: Path):
    torch.save({"model": {"module.a": torch.ones(3)}, "ema": {"module.a": torch.zeros(3)}}, tmp_path / "sent")
    for choice, value in (("auto", 0), ("raw", 1), ("model", 1)):
        answer = inspect(
            {"kind": "file", "upload": "sent", "options": {"kind": "weights", "weights": choice}}, tmp_path
        )
        assert load_file(tmp_path / answer["path"])["a"].tolist() == [value] * 3
        assert answer["findings"]["prefix_removed"] == "module."


def test_file_with_many_names_for_one_tensor_is_refused(tmp_path: Path):
    tensor = torch.ones(2**20)
    torch.save({f"w{number}": tensor for number in range(1000)}, tmp_path / "sent")
    with pytest.raises(UploadError, match="share too few tensors"):
        inspect({"kind": "file", "upload": "sent", "options": {"kind": "weights"}}, tmp_path)
    assert not (tmp_path / "output/canonical.safetensors").exists()


def test_common_prefix_ends_at_a_dot():
    assert common_prefix(["model.a.x", "model.a.y"]) == "model.a."
    assert common_prefix(["model.ab", "model.ac"]) == "model."
    assert common_prefix(["ab", "ac"]) == common_prefix([]) == ""


def test_names_of_averages():
    averaged = ("state_dict_ema", "model_ema.module", "ema", "net.ema_model", "swa", "AveragedModel.averaged")
    assert all(is_averaged(label) for label in averaged)
    assert not any(is_averaged(label) for label in ("schema", "cinema.model", "avgpool", "state_dict", ""))
