"""Search: which of many architectures to try next, from nothing but a seed and the rewards so far.

An architecture is a number. A space is a tuple of families, each a tuple of how many values each of its options has:
`((2, 3), (4,))` has 2 x 3 + 4 architectures, numbered from 0 as odometers count, family after family.
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
    """How the next architecture is drawn.

    `random` draws from all that have not been tried. `evolution` is that of Real et al., "Regularized evolution for image
    classifier architecture search", arXiv:1802.01548: once `population` have been tried, the best of `sample` of the newest
    `population` is the parent of the next, which differs from it in one option; the oldest die, however good they are.
    """

    kind: Literal["evolution", "random"]
    population: int
    sample: int
    seed: int

    def tried(self, space: Space, rewards: tuple[float, ...]) -> tuple[int, ...]:
        """The architectures whose rewards these are, the given one first."""
        return _tried(self, space, rewards)

    def propose(self, space: Space, rewards: tuple[float, ...]) -> int | None:
        """The next architecture, or None when there is no other."""
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
        """A neighbour of the parent's that has not been tried, if there is one."""
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
            raise ValueError(f"there are rewards for {len(rewards)} architectures, and only {count} to try")
        tried = (*tried, following)
    return tried


def size(space: Space) -> int:
    """How many architectures a space has."""
    return sum(math.prod(family) for family in space)


def choices(space: Space, number: int) -> tuple[int, tuple[int, ...]]:
    """The family of an architecture, and which value of each of its options it has."""
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
    return next(number for number in range(total) if number not in tried)  # all but a few of a small space are tried
