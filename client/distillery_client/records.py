"""A job as a record: a dictionary, as the service sends it, that shows itself in notebooks."""

import html
from typing import TYPE_CHECKING, Any

from distillery_client.connection import Connection
from distillery_client.paging import pages

if TYPE_CHECKING:
    import pandas

COLOURS = {
    "succeeded": "#126b35",
    "failed": "#b42318",
    "cancelled": "#8a4b00",
    "running": "#1d4ed8",
    "queued": "#4d5665",
}
WIDTH, HEIGHT = 260, 70


class Job(dict[str, Any]):
    """A job. In a notebook it shows its status, its newest metrics and their curves."""

    def __init__(self, record: dict[str, Any], connection: Connection):
        super().__init__(record)
        self._connection = connection

    def curves(self) -> dict[str, list[tuple[int, float | None]]]:
        """Steps and values of every metric so far, by its name."""
        found: dict[str, list[tuple[int, float | None]]] = {}
        for row in pages(self._connection, f"jobs/{self['id']}/metrics", {"limit": 10_000}):
            found.setdefault(row["name"], []).append((row["step"], row["value"]))
        return found

    def metrics(self) -> "pandas.DataFrame | dict[str, list[tuple[int, float | None]]]":
        """The metrics so far: with pandas a DataFrame with one row a step and one column a metric, without it `curves()`."""
        found = self.curves()
        try:
            import pandas
        except ImportError:
            return found
        columns = {name: pandas.Series(dict(points), dtype="float64") for name, points in found.items()}
        frame = pandas.DataFrame(columns)
        frame.index.name = "step"
        return frame.sort_index()

    def _repr_html_(self) -> str:
        status = str(self.get("status"))
        colour = COLOURS.get(status, "#4d5665")
        fraction = (self.get("progress") or {}).get("fraction")
        part = f" {100 * fraction:.0f} %" if isinstance(fraction, int | float) and status == "running" else ""
        error = self.get("error") or {}
        parts = [
            f"<div><strong>{html.escape(str(self.get('name')))}</strong> <code>{html.escape(str(self.get('id')))}</code>",
            f' <span style="color: {colour}">{html.escape(status)}{part}</span>',
            f"<p>{html.escape(str(error.get('message')))}</p>" if error else "",
            *(_curve(name, points) for name, points in sorted(self.curves().items())),
            "</div>",
        ]
        return "".join(parts)


def _curve(name: str, points: list[tuple[int, float | None]]) -> str:
    """A curve as SVG, with its newest value; nothing without two values."""
    known = [(step, value) for step, value in points if value is not None]
    if len(known) < 2:
        return ""
    low, high = min(value for _, value in known), max(value for _, value in known)
    first, last = known[0][0], known[-1][0]
    places = " ".join(
        f"{(step - first) / ((last - first) or 1) * WIDTH:.1f},{(high - value) / ((high - low) or 1) * HEIGHT:.1f}"
        for step, value in known
    )
    return (
        f'<figure style="display: inline-block; margin: 4px 8px"><svg width="{WIDTH}" height="{HEIGHT}" viewBox="-2 -2 {WIDTH + 4} {HEIGHT + 4}">'
        f'<polyline fill="none" stroke="#1d4ed8" points="{places}"/></svg>'
        f"<figcaption>{html.escape(name)}: {known[-1][1]:.4g} at step {last}</figcaption></figure>"
    )
