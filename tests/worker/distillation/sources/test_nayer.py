"""NAYER's classes and layers, and uploaded embeddings."""

from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file

from tests.worker.distillation.sources.family import CPU, PARAMETERS, SMALL, Game, made, network
from worker.distillation.contract import InputContract
from worker.distillation.introspection.taps import Tapped
from worker.distillation.parameters import parse
from worker.distillation.source import SourceContext
from worker.distillation.sources.nayer import Nayer
from worker.distillation.uploads import class_embeddings


def test_every_layer_serves_each_class_once():
    source = made("nayer", classes=5, generator_batch=17)
    for number in range(6):
        source.generator_step(number, {})
        target = source.target.tolist()
        assert all(sorted(target[start : start + 5]) == list(range(5)) for start in (0, 5, 10))
        assert len(target) == 17
    source = made("nayer", classes=11, generator_batch=4)
    source.generator_step(0, {})
    assert len(set(source.target.tolist())) == 4


def test_layers_are_new_every_round_and_generators_after_their_life():
    source = made("nayer", generator_life=2)
    layers, generators = [], []
    original = source.begin

    def begin(number: int) -> None:
        original(number)
        layers.append(source.layer.weight.detach().clone())
        generators.append(source.generator.stem.weight.detach().clone())

    source.begin = begin
    for number in range(4 * source.iterations):
        source.generator_step(number, {})
    assert not any(torch.equal(one, other) for one, other in pairwise(layers))
    assert torch.equal(generators[2], source.new_generator(2).stem.weight)
    assert not torch.equal(generators[1], source.new_generator(0).stem.weight)  # the layer has been trained


def test_the_generator_reads_uploaded_embeddings(tmp_path):
    rows = torch.randn(3, 7)
    save_file({class_embeddings.KEY: rows}, tmp_path / "embeddings")
    teacher = Tapped(network(0).eval().requires_grad_(False), torch.zeros(2, 2, 8, 12))
    contract = InputContract(2, 8, 12, (0.5, 0.5), (0.2, 0.2))
    values = SMALL | PARAMETERS["nayer"] | {"generator_width": 4, "latent": 6, "embeddings": "fil_1"}
    source = Nayer(parse(Nayer.Parameters, values))
    files = {"fil_1": tmp_path / "embeddings"}
    source.build(SourceContext(teacher, contract, 3, None, 8, 100, None, (), 5, CPU, "classification", files=files))
    assert torch.equal(source.embedding, rows)
    game = Game(source, {"student": network(1)})
    for _ in range(10):
        game.step()
    assert game.number


def test_the_papers_preset_is_that_of_the_authors_scripts():
    source = made(
        "nayer",
        preset="paper",
        latent=None,
        generator_width=4,
        generator_batch=16,
        initial_rounds=None,
        generator_life=None,
    )
    assert source.generator_steps(0) == 200 * source.iterations
    assert source.layer.weight.shape[-1] == 1000
    assert source.image_loss.statistics.momentum == 0.9
    renewed = [number for number in range(1, 245) if source._age(number) == 0]
    assert renewed == [100, 200, 220, 240]


def test_the_papers_layer_is_normal_and_keeps_its_normalisation():
    source = made("nayer", layer="normal", generator_life=2, latent=400, classes=4)
    source.begin(0)
    weight = source.layer.weight.detach()
    assert (weight.mean().abs() < 0.02, source.layer.bias.count_nonzero()) == (True, 0)
    assert weight.std().item() == pytest.approx(1.0, abs=0.02)
    kept = source.layer.norm.running_mean.clone().fill_(0.5)
    source.layer.norm.running_mean.copy_(kept)
    source.begin(1)
    assert torch.equal(source.layer.norm.running_mean, kept)
    source.begin(2)
    assert not source.layer.norm.running_mean.any()  # a new generator has a new one
