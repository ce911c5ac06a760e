"""Charts of a report: SVG paths, drawn on the server, since a report runs no script."""

import math
from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT = 420, 170
LEFT, BOTTOM, TOP, RIGHT = 56, 22, 8, 8


def curve(name: str, steps: Sequence[int], values: Sequence[float | None]) -> dict[str, Any] | None:
    """One curve with its ticks; None for fewer than two finite values."""
    points = [
        (step, value) for step, value in zip(steps, values, strict=True) if value is not None and math.isfinite(value)
    ]
    if len(points) < 2:
        return None
    low, high = min(value for _, value in points), max(value for _, value in points)
    first, last = points[0][0], points[-1][0]
    up = (HEIGHT - BOTTOM - TOP) / ((high - low) or 1.0)
    across = (WIDTH - LEFT - RIGHT) / ((last - first) or 1)
    places = [(LEFT + (step - first) * across, HEIGHT - BOTTOM - (value - low) * up) for step, value in points]
    return {
        "name": name, "path": " ".join(f"{x:.1f},{y:.1f}" for x, y in places), "low": low, "high": high, "first": first,
        "last": last, "end": points[-1][1],
    }  # fmt: skip


def reliability(found: dict[str, Any] | None) -> list[dict[str, float]] | None:
    """Bars of accuracy by confidence; None without a measurement."""
    if not isinstance(found, dict):
        return None
    count, accuracy, confidence = (found.get(name) for name in ("count", "accuracy", "confidence"))
    if not (isinstance(count, list) and isinstance(accuracy, list) and isinstance(confidence, list)) or not count:
        return None
    width = 200 / len(count)
    return [
        {"x": at * width, "width": width - 1, "height": 200 * right, "y": 200 - 200 * right, "sure": sure, "right": right, "count": number}
        for at, (number, right, sure) in enumerate(zip(count, accuracy, confidence, strict=True))
        if number and right is not None
    ]  # fmt: skip
