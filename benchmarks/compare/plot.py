"""The plot of the comparison: each row's difference from plain training with its interval, as plain SVG."""

from collections.abc import Sequence
from html import escape

from benchmarks.compare.results import Difference, Measured, paired

LINE = 16
LEFT = 270
WIDTH = 560
TOP = 40
RIGHT = 20
COLOURS = {1: "#1a7f37", 0: "#57606a", -1: "#cf222e"}


def plot(measured: Sequence[Measured], plain: Measured | None) -> str:
    """One line per row, from the largest difference to the smallest; a vertical line marks KD."""
    pairs = [(each, paired(each.accuracies, plain.accuracies)) for each in measured if plain and each is not plain]
    rows = sorted(((each, gain) for each, gain in pairs if gain), key=lambda pair: -pair[1].mean)
    if not rows:
        return '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>\n'
    ends = [gain.mean + side * (gain.half or 0) for _, gain in rows for side in (-1, 1)]
    low, high = max(min(0.0, *ends), -0.1), min(max(0.0, *ends), 0.1)

    def x(value: float) -> float:
        return LEFT + WIDTH * (min(max(value, low), high) - low) / (high - low)

    height = TOP + LINE * len(rows) + 10
    size = f'width="{LEFT + WIDTH + RIGHT}" height="{height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="14">percentage points relative to plain training, 95 % intervals over paired seeds; dashed: KD</text>',
    ]
    for points in range(round(100 * low), round(100 * high) + 1):
        place = x(points / 100)
        lines.append(
            f'<path d="M{place:.1f} {TOP - 6}V{height - 6}" stroke="{"#57606a" if points == 0 else "#eaeef2"}"/>'
        )
        lines.append(f'<text x="{place:.1f}" y="{TOP - 10}" text-anchor="middle" fill="#57606a">{points:+d}</text>')
    kd = next((gain for each, gain in rows if each.row.name == "kd"), None)
    if kd:
        place = x(kd.mean)
        lines.append(f'<path d="M{place:.1f} {TOP - 6}V{height - 6}" stroke="#0969da" stroke-dasharray="4 3"/>')
    for number, (each, gain) in enumerate(rows):
        lines += _row(each, gain, TOP + LINE * number + LINE / 2, x)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _row(each: Measured, gain: Difference, y: float, x) -> list[str]:
    colour, half = COLOURS[gain.sign], gain.half or 0.0
    return [
        f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(each.row.title)}</text>',
        f'<path d="M{x(gain.mean - half):.1f} {y:.1f}H{x(gain.mean + half):.1f}" stroke="{colour}" stroke-width="1.5"/>',
        f'<circle cx="{x(gain.mean):.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>',
    ]
