"""Search: which architecture to try next, as a function of a seed and the rewards so far.

An architecture is a number. A space is a tuple of families, each a tuple of the numbers of values of its options: `((2,
3), (4,))` has 2 x 3 + 4 architectures, numbered from 0 family by family; the last option varies fastest.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from worker.distillation.randomness import seed_for

Space = tuple[tuple[int, ...], ...]
GIVEN = -1
"""The number of an architecture outside the space, which is tried first."""
DRAWS = 100


@dataclass(frozen=True)
class Sampler:
    """Draws the next architecture.

    `random` draws from all that have not been tried. `evolution` is that of Real et al., "Regularized evolution for
    image classifier architecture search", arXiv:1802.01548: once `population` have been tried, `sample` of the newest
    `population` are drawn, and the best of them is the parent of the next, which differs from it in one option. Older
    ones are never parents, regardless of their reward.
    """

    kind: Literal["evolution", "random"]
    population: int
    sample: int
    seed: int

    def tried(self, space: Space, rewards: tuple[float, ...]) -> tuple[int, ...]:
        """The architectures that have these rewards, the given one first."""
        return _tried(self, space, rewards)

    def propose(self, space: Space, rewards: tuple[float, ...]) -> int | None:
        """The next architecture, or None if all have been tried."""
        return self._draw(space, self.tried(space, rewards), rewards)

    def _draw(self, space: Space, tried: tuple[int, ...], rewards: tuple[float, ...]) -> int | None:
        if not tried:
            return GIVEN
        draw = random.Random(seed_for(self.seed, "search", len(tried)))
        if self.kind == "evolution" and len(tried) >= self.population:
            child = self._child(space, tried, rewards, draw)
            if child is not None:
                return child
        return _untried(space, tried, draw)

    def _child(
        self, space: Space, tried: tuple[int, ...], rewards: tuple[float, ...], draw: random.Random
    ) -> int | None:
        """A neighbour of the parent that has not been tried, if there is one."""
        alive = range(len(tried) - self.population, len(tried))
        parent = max(draw.sample(alive, min(self.sample, len(alive))), key=lambda trial: rewards[trial])
        if tried[parent] == GIVEN:
            return None
        left = [each for each in neighbours(space, tried[parent]) if each not in tried]
        return draw.choice(left) if left else None


@lru_cache(maxsize=1024)
def _tried(sampler: Sampler, space: Space, rewards: tuple[float, ...]) -> tuple[int, ...]:
    tried: tuple[int, ...] = ()
    for count in range(len(rewards)):
        following = sampler._draw(space, tried, rewards[:count])
        if following is None:
            raise ValueError(f"there are rewards for {len(rewards)} architectures, but only {count} to try")
        tried = (*tried, following)
    return tried


def size(space: Space) -> int:
    """The number of architectures in a space."""
    return sum(math.prod(family) for family in space)


def choices(space: Space, number: int) -> tuple[int, tuple[int, ...]]:
    """The index of an architecture's family, and the index of each of its options' values."""
    for index, family in enumerate(space):
        if number < math.prod(family):
            values = []
            for count in reversed(family):
                number, value = divmod(number, count)
                values.append(value)
            return index, tuple(reversed(values))
        number -= math.prod(family)
    raise ValueError("the space has no architecture of this number")


def neighbours(space: Space, number: int) -> Iterator[int]:
    """The architectures of the same family that differ in one option."""
    index, values = choices(space, number)
    unit = 1
    for count, value in zip(reversed(space[index]), reversed(values), strict=True):
        yield from (number + (other - value) * unit for other in range(count) if other != value)
        unit *= count


def _untried(space: Space, tried: tuple[int, ...], draw: random.Random) -> int | None:
    total = size(space)
    if len(set(tried) - {GIVEN}) >= total:
        return None
    for _ in range(DRAWS):
        number = draw.randrange(total)
        if number not in tried:
            return number
    return next(number for number in range(total) if number not in tried)  # nearly all of a small space have been tried
