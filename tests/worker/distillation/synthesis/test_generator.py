"""The generators' sizes, statistics and seeds."""

import pytest
import torch
from torch import nn

from worker.distillation.contract import InputContract
from worker.distillation.synthesis.generator import Generator, brightness, seeded

CPU = torch.device("cpu")


def contract(channels: int, height: int, width: int) -> InputContract:
    return InputContract(channels, height, width, (0.5,) * channels, (0.5,) * channels)


def test_published_generator_has_the_published_number_of_parameters():
    generator = Generator(contract(1, 32, 32), latent=100, width=128, resolution="full")
    assert sum(parameter.numel() for parameter in generator.parameters()) == 1_049_985


def test_full_resolution_is_the_published_sequence_of_layers():
    generator = Generator(contract(3, 16, 24), latent=5, width=8, resolution="full")
    published = nn.Sequential(
        generator.stem, nn.Unflatten(1, (8, 4, 6)), generator.stem_norm,
        nn.Upsample(scale_factor=2), generator.conv1, generator.norm1, nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2), generator.conv2, generator.norm2, nn.LeakyReLU(0.2),
        generator.to_image, nn.Tanh(), generator.ending.norm,
    )  # fmt: skip
    noise = torch.randn(6, 5)
    torch.testing.assert_close(generator(noise), published(noise), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("resolution", ["full", "half"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 16), (2, 9, 13), (4, 1, 3)])
def test_images_have_the_contract_s_shape_and_are_normalised(shape, resolution):
    generator = Generator(contract(*shape), latent=7, width=4, resolution=resolution)
    nn.init.normal_(generator.to_image.weight, std=10)  # far above the normalisation's epsilon
    image = generator(torch.randn(64, 7))
    assert image.shape == (64, *shape)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image.mean(dim=(0, 2, 3)), torch.zeros(shape[0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(image.var(dim=(0, 2, 3), unbiased=False), torch.ones(shape[0]), atol=1e-2, rtol=0)


@pytest.mark.parametrize(("mean", "std"), [(0.13, 0.2), (0.47, 0.25), (0.8, 0.1)])
def test_the_contracts_range_keeps_about_its_mean_and_standard_deviation(mean, std):
    wanted = InputContract(1, 8, 8, (mean,), (std,))
    generator = Generator(wanted, latent=7, width=4, resolution="full", output="contract")
    nn.init.normal_(generator.to_image.weight, std=10)
    pixel = std * generator(torch.randn(512, 7)) + mean
    assert pixel.min() >= -1e-5 and pixel.max() <= 1 + 1e-5
    gain, offset = brightness(mean, std)
    normal = (gain * torch.randn(100_000) + offset).sigmoid()
    assert normal.mean().item() == pytest.approx(mean, abs=0.03) and normal.std().item() == pytest.approx(std, abs=0.03)


@pytest.mark.parametrize("pair", [(0.0, 1.0), (0.5, 0.5), (1.0, 0.1)])
def test_a_contract_that_says_nothing_gives_grey_images(pair):
    assert brightness(*pair) == brightness(0.5, 0.25) and brightness(0.5, 0.25)[1] == 0


def test_a_sigmoid_is_normalised_by_the_contract_and_the_convolutions_have_no_biases():
    generator = Generator(contract(3, 8, 8), latent=7, width=4, resolution="full", output="sigmoid")
    nn.init.normal_(generator.to_image.weight, std=100)
    image = generator(torch.randn(8, 7))
    assert image.min().item() == pytest.approx(-1) and image.max().item() == pytest.approx(1)
    assert generator.conv1.bias is generator.conv2.bias is None and generator.to_image.bias is not None


def test_weights_depend_on_the_seed_alone():
    before = torch.get_rng_state()
    make = [
        seeded(contract(1, 8, 8), latent=5, width=4, resolution="half", seed=seed, device=CPU).state_dict()
        for seed in (1, 1, 2)
    ]
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(tensor, make[1][name]) for name, tensor in make[0].items())
    assert not torch.equal(make[0]["stem.weight"], make[2]["stem.weight"])
