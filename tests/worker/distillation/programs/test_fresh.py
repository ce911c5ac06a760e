import math

import torch

from tests.worker.distillation.programs.samples import Everything, Residual, again, of
from worker.distillation.programs.fresh import initialise


def test_layers_begin_as_torch_has_them(tmp_path):
    program = again(of(Residual, width=32), tmp_path / "net.safetensors")
    torch.manual_seed(3)
    assert initialise(program) == ()
    bound = 1 / math.sqrt(32 * 9)
    weight = program.get_submodule("body.0.conv").weight.detach()
    assert float(weight.abs().max()) <= bound and float(weight.std()) > 0.9 * bound / math.sqrt(3)
    assert torch.equal(program.bn.weight, torch.ones(32)) and torch.equal(program.bn.running_var, torch.ones(32))
    first = weight.clone()
    torch.manual_seed(3)
    initialise(program)
    assert torch.equal(program.get_submodule("body.0.conv").weight, first)


def test_what_no_layer_holds_keeps_its_packed_values_or_is_drawn_by_its_use(tmp_path):
    network = of(Everything)
    with torch.no_grad():
        network.attention.in_proj_weight.fill_(7.0)
    program = again(network, tmp_path / "net.safetensors")
    kept = initialise(program)
    assert "attention.in_proj_weight" not in kept and float(program.attention.in_proj_weight.detach().abs().max()) < 1
    assert torch.equal(program.steps, network.steps) and torch.equal(program.offset, network.offset)


class Positions(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.positions = torch.nn.Parameter(torch.full((1, 3, 16, 16), 0.25))
        self.head = torch.nn.Linear(3, 5)

    def forward(self, x):
        return self.head((x + self.positions).mean((2, 3)))


def test_position_embeddings_keep_their_packed_values(tmp_path):
    program = again(of(Positions), tmp_path / "net.safetensors")
    assert initialise(program) == ("positions",)
    assert torch.equal(program.positions, torch.full((1, 3, 16, 16), 0.25))
