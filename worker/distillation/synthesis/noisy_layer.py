"""A layer of noise that turns embeddings of classes into what a generator reads.

Shapes: B batch, E dimensions of an embedding, Z of what the generator reads, S sets of one image a class.
"""

import torch
from torch import Tensor, nn


class NoisyLayer(nn.Module):
    """BatchNorm of embeddings, then a linear layer for each set of images, whose weights are drawn and not learnt from
    one round to the next (within a round they are trained).

    Tran et al., arXiv:2310.00258, section 3; weights and biases are uniform in +-1/sqrt(E), as torch's linear layers are.
    """

    def __init__(self, embedding: int, latent: int, sets: int, images: int):
        """`images`: how many a set has."""
        super().__init__()
        self.images = images
        self.norm = nn.BatchNorm1d(embedding)
        self.weight = nn.Parameter(torch.zeros(sets, embedding, latent))
        self.bias = nn.Parameter(torch.zeros(sets, 1, latent))

    @torch.no_grad()
    def draw(self, random: torch.Generator) -> None:
        """Forget what was learnt, and draw new weights with a generator on the CPU."""
        self.norm.reset_parameters()
        for each in (self.weight, self.bias):
            each.copy_((2 * torch.rand(each.shape, generator=random) - 1) / self.weight.shape[1] ** 0.5)

    def forward(self, embedding_BE: Tensor) -> Tensor:
        """What the generator reads (B, Z); the batch is S sets one after another, the last one perhaps cut short."""
        count, sets = len(embedding_BE), len(self.weight)
        normal = nn.functional.pad(self.norm(embedding_BE), (0, 0, 0, sets * self.images - count))
        return (normal.unflatten(0, (sets, self.images)) @ self.weight + self.bias).flatten(0, 1)[:count]
