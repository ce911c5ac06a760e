"""Warnings about an input contract, without a labelled image."""

import torch
from torch import nn

from worker.distillation.contract import InputContract
from worker.distillation.contract_check.unlabelled import suspicions


class FirstPixel(nn.Module):
    """Two logits: `gain` times the first pixel, and 0."""

    def __init__(self, gain):
        super().__init__()
        self.gain = gain

    def forward(self, x):
        first = x.flatten(1)[:, :1]
        return torch.cat([self.gain * first, torch.zeros_like(first)], 1)


def contract(mean, std):
    return InputContract(1, 4, 4, (mean,), (std,))


def test_numbers_of_0_to_255_are_noticed():
    (words,) = suspicions(FirstPixel(0.01), contract(33.3, 78.6))
    assert words.startswith("mean and std is above 1") and "divide them by 255" in words
    assert suspicions(FirstPixel(1.0), contract(0.13, 0.31)) == []


def test_one_saturated_class_for_everything_is_noticed():
    (words,) = suspicions(FirstPixel(1.0), contract(-1.0, 1 / 255))
    assert "class 0 with a probability of almost 1" in words
    assert suspicions(FirstPixel(1000.0), contract(0.5, 1.0)) == []  # saturated, but of two classes
    assert suspicions(FirstPixel(0.0), contract(0.5, 1.0)) == []  # one class, but in doubt
