import copy

import pytest
import torch
from torch import nn

from tests.worker.distillation.programs.samples import CLASSES, Everything, Residual, again, of, packed
from worker.distillation.errors import UploadError
from worker.distillation.programs.build import checked
from worker.distillation.programs.format import is_name
from worker.distillation.programs.layers import ACTIVATION_OPERATIONS
from worker.distillation.programs.operators import OPERATIONS
from worker.distillation.programs.packing import CannotPack, compare, pack, program_of
from worker.distillation.programs.reading import is_program

CONTRACT = {"channels": 3, "height": 16, "width": 16, "mean": [0.0] * 3, "std": [1.0] * 3}


def test_no_listed_operation_reads_files_or_makes_tensors_of_other_memory():
    forbidden = ("file", "save", "load", "as_strided", "set_", "resize", "item", "nonzero", "print", "empty", "out")
    names = [name.split(".")[1] for name in OPERATIONS if name.startswith("aten.")]
    assert [name for name in names if any(name.strip("_") == word.strip("_") for word in forbidden)] == []
    assert all(
        not any(argument.is_out for argument in each.schema.arguments) for each in OPERATIONS.values() if each.schema
    )
    assert set(OPERATIONS) >= ACTIVATION_OPERATIONS


def test_operations_that_write_name_their_first_argument_as_what_they_write():
    for each in OPERATIONS.values():
        if each.changes:
            first, *others = each.schema.arguments
            assert first.alias_info is not None and first.alias_info.is_write, each.name
            assert not any(other.alias_info is not None and other.alias_info.is_write for other in others), each.name


def test_operations_count_for_one_image(tmp_path):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 5))
    found = checked(packed(network, tmp_path / "net.safetensors"))
    assert found.sizes["eval"].operations == 2 * 768 * 5
    assert is_program(tmp_path / "net.safetensors")


@pytest.mark.parametrize("name", ["a", "layer1.0.conv", "_x.1"])
def test_names_of_modules(name):
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "a..b", "a.", "a b", "class", "a.__init__", "training", "a.forward", "é", "a\n"])
def test_names_that_no_module_can_have(name):
    assert not is_name(name)


def test_a_program_that_computes_something_else_is_not_written(tmp_path):
    network = of(Residual)
    program, tensors = program_of(network, CONTRACT, (), train=True)
    compare(program, tensors, network)
    wrong = copy.deepcopy(program)
    wrong["graphs"]["eval"]["nodes"][2][0] = "aten.tanh.default"
    with pytest.raises(CannotPack, match="the logits in mode eval"):
        compare(wrong, tensors, network)
    wrong = copy.deepcopy(program)
    del wrong["graphs"]["train"]["nodes"][1][2][1]
    wrong["graphs"]["train"]["nodes"][1][2].append(2)
    with pytest.raises(CannotPack, match="num_batches_tracked"):
        compare(wrong, tensors, network)


class Refused(torch.nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.head, self.does = torch.nn.Linear(3, 5), forward

    def forward(self, x):
        return self.does(self, x.mean((2, 3)))


def autocast(self, x):
    with torch.autocast("cpu"):
        return self.head(x)


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda self, x: self.head(x)[0], "one tensor of logits"),
        (lambda self, x: (self.head(x), x), "one tensor of logits"),
        (lambda self, x: self.head(x) if float(x.sum()) > 0 else -self.head(x), "torch.export cannot export"),
        (lambda self, x: self.head(x.view(2, 3)), "torch.export cannot export"),
        (autocast, "no program can hold"),
    ],
)
def test_networks_that_cannot_be_packed_say_why(tmp_path, forward, words):
    with pytest.raises(CannotPack, match=words):
        pack(Refused(forward), tmp_path / "net.safetensors", **CONTRACT)
    assert not (tmp_path / "net.safetensors").exists()


def test_packing_leaves_the_network_as_it_was(tmp_path):
    network = of(Everything).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    packed(network, tmp_path / "net.safetensors", class_names=list("abcde"))
    assert network.training and all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert checked(tmp_path / "net.safetensors").program.class_names == tuple("abcde")


class Remembering(nn.Module):
    """Keeps a result of its parameters from the first pass in evaluation mode on, as timm's attentions do."""

    def __init__(self):
        super().__init__()
        self.bias, self.kept = nn.Parameter(torch.ones(CLASSES)), {}

    def forward(self, x):
        if self.training:
            return x.mean((2, 3)) @ torch.ones(3, CLASSES) + 2 * self.bias
        if "bias" not in self.kept:
            self.kept["bias"] = 2 * self.bias
        return x.mean((2, 3)) @ torch.ones(3, CLASSES) + self.kept["bias"]


def test_a_network_that_has_run_with_gradients_is_packed(tmp_path):
    network = Remembering().eval()
    x = torch.randn(2, 3, 16, 16)
    program = again(network, tmp_path / "net.safetensors")
    expected = network(x)
    assert torch.equal(program.eval()(x), expected) and torch.equal(program.train()(x), expected)
    packed(network, tmp_path / "again.safetensors")
    assert network.kept["bias"].grad_fn is not None


def test_a_file_that_changes_is_checked_again(tmp_path):
    path = packed(of(Residual), tmp_path / "net.safetensors")
    assert checked(path) is checked(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UploadError):
        checked(path)
