import copy

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.worker.distillation.programs.samples import (
    LIBRARY,
    Everything,
    Normed,
    Residual,
    again,
    library_networks,
    of,
)
from worker.distillation.introspection.channel_following import follow
from worker.distillation.introspection.taps import Tapped
from worker.distillation.programs.packing import copy_of
from worker.distillation.synthesis.batch_norm_statistics import StatisticsReader

SMALL = {"everything": Everything, "residual": Residual, "normed": Normed}


@pytest.fixture(scope="module", params=[*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LIBRARY)])
def pair(request, tmp_path_factory):
    """A network, the same packed and loaded, and the size of its images."""
    make, size = (SMALL[request.param], 16) if request.param in SMALL else library_networks()[request.param]
    network = of(make)
    return network, again(network, tmp_path_factory.mktemp("pair") / "net.safetensors", size=size), size


def images(size, count=3, seed=0):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def logits_of(network, x):
    torch.manual_seed(5)
    return network(x)


def trained(network, size, steps=4):
    """The state after some steps of SGD with momentum, all random numbers alike."""
    network = copy_of(network).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        F.cross_entropy(network(images(size, 4, step)), torch.arange(4)).backward()
        optimizer.step()
    return network.state_dict()


def test_it_is_the_original_bit_for_bit(pair):
    network, program, size = pair
    assert list(program.state_dict()) == list(network.state_dict())
    assert [name for name, _ in program.named_parameters()] == [name for name, _ in network.named_parameters()]
    for count in (1, 3):
        x = images(size, count)
        assert torch.equal(program.eval()(x), network.eval()(x))
    theirs, ours = trained(network, size), trained(program, size)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_its_taps_are_what_hooks_on_the_original_see(pair):
    network, program, size = pair
    x = images(size)
    theirs, ours = Tapped(copy_of(network).eval(), x), Tapped(copy_of(program).eval(), x)
    assert ours.map.stages == theirs.map.stages
    assert ours.map.classifier == theirs.map.classifier
    both = [tap for tap in (*theirs.map.shapes, *theirs.map.inputs) if ours.map.shape(tap) is not None]
    assert len(both) > 0.5 * (len(theirs.map.shapes) + len(theirs.map.inputs))
    # where an activation is applied as a function, the program has a module for it, so that `:pre` may be a later one
    both = [tap for tap in both if not tap.endswith(":pre") or ours._trace.places[tap] == theirs._trace.places[tap]]
    theirs.request(both)
    ours.request(both)
    expected, given = theirs(x).taps, ours(x).taps
    assert [tap for tap in both if not torch.equal(given[tap], expected[tap])] == []


def test_batch_norms_are_layers_with_their_statistics(pair):
    network, program, _ = pair
    norms = {name: each for name, each in network.named_modules() if type(each) in (nn.BatchNorm1d, nn.BatchNorm2d)}
    for name, norm in norms.items():
        ours = program.get_submodule(name)
        assert type(ours) is type(norm)
        assert torch.equal(ours.running_var, norm.running_var) and (ours.eps, ours.momentum) == (
            norm.eps,
            norm.momentum,
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in LIBRARY if name != "timm_maxvit"]
)  # which torch cannot export itself
def test_it_exports_to_onnx_as_the_original_does(name, tmp_path):
    make, size = library_networks()[name]
    program = again(of(make), tmp_path / "net.safetensors", size=size, train=False).eval()
    path = tmp_path / "net.onnx"
    dynamic = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(program, (images(size, 2),), path, dynamo=True, dynamic_shapes=dynamic, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = images(size, 4)
    (given,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        expected = program(x)
    assert float((torch.from_numpy(given) - expected).abs().max()) <= 1e-4 * max(1.0, float(expected.abs().max()))


def test_it_works_as_any_module_does(tmp_path):
    network = of(Residual)
    program = again(network, tmp_path / "net.safetensors").eval()
    x = images(16)
    expected = network.eval()(x)
    copied = copy.deepcopy(program)
    with torch.no_grad():
        copied.conv.weight.zero_()
    assert torch.equal(program(x), expected) and not torch.equal(copied(x), expected)
    assert torch.equal(program.double()(x.double()).float(), network.double()(x.double()).float())
    program.float(), network.float()
    assert torch.equal(program.bfloat16()(x.bfloat16()), network.bfloat16()(x.bfloat16()))
    program.float()
    state = {name: torch.zeros_like(tensor) for name, tensor in program.state_dict().items()}
    assert torch.equal(torch.func.functional_call(program, state, (x,)), torch.zeros(3, 5))
    assert program.to("meta")(x.to("meta")).shape == (3, 5)


def test_shared_weights_stay_shared(tmp_path):
    program = again(of(Everything), tmp_path / "net.safetensors")
    assert program.head.weight is program.tied.weight
    copied = copy.deepcopy(program)
    assert copied.head.weight is copied.tied.weight and copied.head.weight is not program.head.weight


def test_modes_of_parts_are_those_of_layers(tmp_path):
    program = again(of(Residual), tmp_path / "net.safetensors").train()
    program.get_submodule("body.0.bn").eval()
    before = {name: buffer.clone() for name, buffer in program.named_buffers()}
    program(images(16))
    changed = {name for name, buffer in program.named_buffers() if not torch.equal(buffer, before[name])}
    assert not any(name.startswith("body.0.bn.") for name in changed)
    assert {"bn.running_mean", "bn.num_batches_tracked"} <= changed


def test_without_a_graph_of_training_mode_it_says_so(tmp_path):
    program = again(of(Residual), tmp_path / "net.safetensors", train=False)
    with pytest.raises(RuntimeError, match="no graph of training mode"):
        program.train()(images(16))


def test_an_activation_applied_as_a_function_becomes_a_tap(tmp_path):
    program = again(of(Everything), tmp_path / "net.safetensors").eval()
    tapped = Tapped(program, images(16))
    tapped.request(["relu_0", "relu_0:pre"])
    with torch.no_grad():
        taps = tapped(images(16)).taps
    assert torch.equal(taps["relu_0"], taps["relu_0:pre"].relu())
    assert bool((taps["relu_0:pre"] < 0).any())


def test_a_normalisation_within_a_module_is_seen_by_what_watches_the_function(tmp_path):
    network = of(Normed)
    program = again(network, tmp_path / "net.safetensors").eval()
    with torch.no_grad(), StatisticsReader() as theirs:
        network.eval()(images(16))
    with torch.no_grad(), StatisticsReader() as ours:
        program(images(16))
    assert len(ours.found) == len(theirs.found) == 1
    assert all(torch.equal(one, other) for one, other in zip(ours.found[0], theirs.found[0], strict=True))


def test_channels_are_followed_through_a_program_as_through_the_original(tmp_path):
    network = of(Residual)
    program = again(network, tmp_path / "net.safetensors").eval()

    def sizes(of):
        followed = follow(of, images(16, 2))
        return {
            name: tuple(None if axis is None else sum(group.root.size * each for group, each in axis) for axis in axes)
            for name, axes in followed.axes.items()
        }

    assert sizes(program) == sizes(network.eval())
