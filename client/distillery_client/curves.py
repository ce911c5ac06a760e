"""Curves of a job in the terminal."""

import math
from collections.abc import Mapping, Sequence

import plotext

MOST_CURVES = 2
SMALLEST_WIDTH, HEIGHT = 40, 12
FIRST = ("validation/accuracy", "loss", "agreement")
"""Metrics that are shown before others."""

Points = Sequence[tuple[int, float | None]]


def chosen(names: Sequence[str], wanted: Sequence[str] = ()) -> list[str]:
    """The metrics to show: those that are wanted, or else the most telling ones."""
    if wanted:
        return [name for name in wanted if name in names]
    rest = sorted(
        (name for name in names if name not in (*FIRST, "learning_rate")), key=lambda name: ("/" in name, name)
    )
    return [*(name for name in FIRST if name in names), *rest][:MOST_CURVES]


def drawing(curves: Mapping[str, Points], width: int, wanted: Sequence[str] = (), colour: bool = True) -> str:
    """Curves below each other, `width` characters wide; empty if none has two finite values."""
    drawn = []
    for name in chosen(list(curves), wanted):
        points = [(step, value) for step, value in curves[name] if value is not None and math.isfinite(value)]
        if len(points) > 1:
            drawn.append(_drawn(name, points, max(SMALLEST_WIDTH, width), colour))
    return "\n".join(drawn)


def _drawn(name: str, points: Sequence[tuple[int, float]], width: int, colour: bool) -> str:
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(width, HEIGHT)
    plotext.title(f"{_plain(name)} {points[-1][1]:.4g}")
    plotext.plot([step for step, _ in points], [value for _, value in points], marker="braille")
    text = str(plotext.build())
    return text if colour else str(plotext.uncolorize(text))


def _plain(text: str) -> str:
    """A name without control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)[:60]
