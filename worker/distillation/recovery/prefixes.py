"""Maps behind the first layers, kept for readings that begin alike."""

from collections import OrderedDict
from collections.abc import Hashable

from torch import Tensor

MOST_BYTES = 2**28


class Prefixes:
    """Maps by what was computed so far; the least recently used ones are dropped when they are more than 256 MiB."""

    def __init__(self) -> None:
        self._maps: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> Tensor | None:
        found = self._maps.get(key)
        if found is not None:
            self._maps.move_to_end(key)
        return found

    def put(self, key: Hashable, maps: Tensor) -> None:
        if key in self._maps:
            return
        self._maps[key] = maps
        self._bytes += maps.nbytes
        while self._bytes > MOST_BYTES:
            _, dropped = self._maps.popitem(last=False)
            self._bytes -= dropped.nbytes
