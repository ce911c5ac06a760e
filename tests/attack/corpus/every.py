"""The whole corpus in the order of a seed."""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from tests.attack.corpus import archives, arrays, graphs, pickles, pictures, tables
from tests.attack.corpus.case import Canary, Case
from tests.attack.corpus.damage import damaged


def written(canary: Canary, dice: random.Random) -> list[Case]:
    """Every case that is written by hand or by a table."""
    parts: Iterable[Iterable[Case]] = (
        pickles.calls(canary),
        pickles.opcodes(dice),
        pickles.growth(),
        arrays.safetensors(canary),
        arrays.npy(canary),
        arrays.npz(canary),
        archives.names(canary),
        archives.zips(canary),
        archives.tars(canary),
        pictures.pictures(canary),
        pictures.dataset_options(),
        tables.tables(canary),
        graphs.programs(canary),
        graphs.onnx(canary),
    )
    return list(chain.from_iterable(parts))


def corpus(canary: Canary, inputs: Path, seed: int) -> Iterator[Case]:
    """All cases, one of each family in turn, and then damaged files without end."""
    graphs.honest()
    dice = random.Random(f"corpus {seed}")
    families: dict[str, list[Case]] = defaultdict(list)
    for case in written(canary, dice):
        families[case.family].append(case)
    for cases in families.values():
        dice.shuffle(cases)
    spoilt = damaged(inputs, dice)
    while families:
        for name in list(families):
            yield families[name].pop()
            if not families[name]:
                del families[name]
        yield next(spoilt)
    yield from spoilt
