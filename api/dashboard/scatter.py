"""Charts that need no script: SVG, drawn on the server."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 16, 44


class Point(NamedTuple):
    """A named value with its spread."""

    name: str
    value: float
    spread: float


@dataclass(frozen=True)
class Mark:
    """A job in a scatter: its cost, its quality, and whether no other is both cheaper and better."""

    name: str
    href: str
    cost: float
    quality: float
    best: bool = False


def pareto(marks: Sequence[Mark]) -> list[Mark]:
    """The marks, in the order of their cost, with `best` set for those of the Pareto front."""
    found, highest = [], -math.inf
    for mark in sorted(marks, key=lambda one: (one.cost, -one.quality)):
        best = mark.quality > highest
        highest = max(highest, mark.quality)
        found.append(Mark(mark.name, mark.href, mark.cost, mark.quality, best))
    return found


def scatter(marks: Sequence[Mark], cost_name: str, quality_name: str) -> dict[str, Any] | None:
    """Quality against cost, on a logarithmic scale of cost; None for fewer than two marks."""
    usable = pareto([mark for mark in marks if mark.cost > 0 and math.isfinite(mark.quality)])
    if len(usable) < 2:
        return None
    lows, highs = [math.log10(mark.cost) for mark in usable], [mark.quality for mark in usable]
    x, y = _scale(min(lows), max(lows), LEFT, WIDTH - RIGHT), _scale(min(highs), max(highs), HEIGHT - BOTTOM, TOP)
    places = [(x(math.log10(mark.cost)), y(mark.quality), mark) for mark in usable]
    front = " ".join(f"{at:.1f},{up:.1f}" for at, up, mark in places if mark.best)
    ticks = [(y(value), value) for value in _ticks(min(highs), max(highs))]
    across = [(x(value), 10**value) for value in _ticks(min(lows), max(lows))]
    return {
        "width": WIDTH, "height": HEIGHT, "left": LEFT, "bottom": HEIGHT - BOTTOM, "top": TOP, "right": WIDTH - RIGHT,
        "places": places, "front": front, "ticks": ticks, "across": across, "cost": cost_name, "quality": quality_name,
    }  # fmt: skip


def bars(points: Sequence[Point], name: str) -> dict[str, Any] | None:
    """Means with their spreads, one line each; None without a point."""
    if not points:
        return None
    low = min(point.value - point.spread for point in points)
    high = max(point.value + point.spread for point in points)
    left = 200
    x = _scale(low, high, left, WIDTH - RIGHT)
    rows = [
        (
            26 + 24 * at,
            point.name,
            x(point.value),
            x(point.value - point.spread),
            x(point.value + point.spread),
            point.value,
        )
        for at, point in enumerate(points)
    ]
    height = 26 + 24 * len(points) + 20
    ticks = [(x(value), value) for value in _ticks(low, high)]
    return {"width": WIDTH, "height": height, "rows": rows, "ticks": ticks, "name": name, "left": left}


def _scale(low: float, high: float, start: float, end: float) -> Any:
    span = (high - low) or (abs(high) * 0.1 or 1.0)
    pad = span * 0.08
    return lambda value: start + (value - low + pad) / (span + 2 * pad) * (end - start)


def _ticks(low: float, high: float) -> list[float]:
    span = (high - low) or (abs(high) * 0.1 or 1.0)
    return [low + span * part / 4 for part in range(5)] if high > low else [low]
