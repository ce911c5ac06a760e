"""A layer of random weights that maps embeddings of classes to a generator's input.

Shapes: B batch, E dimensions of an embedding, Z of the generator's input, S sets of one image for each class.
"""

from typing import Literal

import torch
from torch import Tensor, nn

Spread = Literal["uniform", "normal"]


class NoisyLayer(nn.Module):
    """BatchNorm of embeddings, then a linear layer for each set of images; its weights are drawn anew for each round
    and trained within it.

    Tran et al., arXiv:2310.00258, section 3. With the spread `uniform`, weights and biases are uniform in +-1/sqrt(E), as
    in torch's linear layers, and the BatchNorm is new in each round too. With `normal`, as in the authors' code
    (tmtuan1307/NAYER, `re_init_le`), weights are drawn from N(0, 1), biases are 0, and the BatchNorm stays.
    """

    def __init__(self, embedding: int, latent: int, sets: int, images: int, spread: Spread = "uniform"):
        """`images`: number of images in a set."""
        super().__init__()
        self.images = images
        self.spread = spread
        self.norm = nn.BatchNorm1d(embedding)
        self.weight = nn.Parameter(torch.zeros(sets, embedding, latent))
        self.bias = nn.Parameter(torch.zeros(sets, 1, latent))

    @torch.no_grad()
    def draw(self, random: torch.Generator) -> None:
        """Draw new weights with a generator on the CPU."""
        if self.spread == "normal":
            self.weight.copy_(torch.randn(self.weight.shape, generator=random))
            self.bias.zero_()
            return
        self.norm.reset_parameters()
        for each in (self.weight, self.bias):
            each.copy_((2 * torch.rand(each.shape, generator=random) - 1) / self.weight.shape[1] ** 0.5)

    def forward(self, embedding_BE: Tensor) -> Tensor:
        """The generator's input (B, Z); the batch is S sets one after another, the last possibly incomplete."""
        count, sets = len(embedding_BE), len(self.weight)
        normal = nn.functional.pad(self.norm(embedding_BE), (0, 0, 0, sets * self.images - count))
        return (normal.unflatten(0, (sets, self.images)) @ self.weight + self.bias).flatten(0, 1)[:count]
