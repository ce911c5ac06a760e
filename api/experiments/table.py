"""The table of an experiment: its variants compared by one metric."""

import csv
import io
import re
from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy.orm import Session

from api.experiments import service, statistics
from api.experiments.schemas import RowBody, TableBody
from api.http.errors import Invalid
from api.jobs.summaries import measured, summaries
from models.database import reading
from models.status import JobStatus

LOWEST = re.compile(
    r"loss|error|bytes|parameters|multiply_adds|milliseconds|seconds|distance|divergence|(^|[/_])(kl|mae|mse|rmse)"
)
"""Metrics whose lowest value is the best."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters at which a spreadsheet takes a text for a formula."""
Best = Literal["highest", "lowest"]


def table(key_id: str, identifier: str, metric: str | None, baseline: str | None, best_is: Best | None) -> TableBody:
    """The table of an experiment.

    Raises:
        NotFound: the experiment does not exist or belongs to another key.
        Invalid: no job has the metric, or the experiment has no such variant as the baseline.
    """
    with reading() as session:
        experiment = service.find(session, key_id, identifier)
        jobs = service.jobs_of(session, identifier)
        values = measured(session, [job.id for job in jobs])
        names = sorted({name for found in values.values() for name in found})
        metric = _metric(session, jobs, names, metric)
    variants = list(dict.fromkeys(job.variant or "" for job in jobs))
    if baseline is not None and baseline not in variants:
        raise Invalid([("baseline", f"is not a variant of this experiment: {', '.join(variants)[:500]}")])
    first = baseline or (variants[0] if variants else "")
    by_seed = {variant: _by_seed(jobs, variant, values, metric) for variant in variants}
    rows = [_row(jobs, variant, by_seed, first) for variant in variants]
    direction: Best = best_is or ("lowest" if metric and LOWEST.search(metric) else "highest")
    return TableBody(
        experiment=identifier, name=experiment.name, metric=metric, best_is=direction, best=_best(rows, direction),
        baseline=first, metrics=names, rows=rows,
    )  # fmt: skip


def _metric(session: Session, jobs: Sequence[Any], names: Sequence[str], wanted: str | None) -> str | None:
    """The wanted metric, or else the task's main one."""
    if wanted is not None:
        if wanted not in names:
            raise Invalid(
                [("metric", f"no job of this experiment has it; they have: {', '.join(names)[:1000] or 'none yet'}")]
            )
        return wanted
    for summary in summaries(session, [job.id for job in jobs]).values():
        main = summary.get("main_metric")
        if isinstance(main, dict) and main.get("name") in names:
            return str(main["name"])
    return next((name for name in ("validation/accuracy", "agreement", "loss") if name in names), None)


def _by_seed(
    jobs: Sequence[Any], variant: str, values: dict[str, dict[str, float]], metric: str | None
) -> dict[str, float]:
    mine = [job for job in jobs if job.variant == variant and metric is not None and metric in values[job.id]]
    return {str(job.seed): values[job.id][metric or ""] for job in mine}


def _row(jobs: Sequence[Any], variant: str, by_seed: dict[str, dict[str, float]], baseline: str) -> RowBody:
    values = by_seed[variant]
    numbers = list(values.values())
    statuses = [JobStatus(job.status) for job in jobs if job.variant == variant]
    return RowBody(
        variant=variant,
        n=len(numbers),
        mean=statistics.mean(numbers),
        spread=statistics.spread(numbers),
        difference=None if variant == baseline else statistics.paired(values, by_seed[baseline]),
        values=values,
        unfinished=sum(not status.final for status in statuses),
        failed=sum(status in (JobStatus.FAILED, JobStatus.CANCELLED) for status in statuses),
    )


def _best(rows: Sequence[RowBody], direction: Best) -> str | None:
    known = [(row.mean, row.variant) for row in rows if row.mean is not None]
    if not known:
        return None
    choose = min if direction == "lowest" else max
    return choose(known, key=lambda pair: pair[0])[1]


HEADINGS = (
    "variant",
    "n",
    "mean",
    "spread",
    "difference",
    "half of the 95 % interval",
    "pairs",
    "unfinished",
    "failed",
)


def as_csv(body: TableBody) -> str:
    """The table as CSV. Texts at which a spreadsheet would see a formula begin with an apostrophe."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\r\n")
    writer.writerow(("metric", *HEADINGS))
    for row in body.rows:
        away = row.difference
        cells = (row.mean, row.spread, away and away.mean, away and away.half, away and away.n)
        numbers = ["" if cell is None else repr(cell) for cell in cells]
        writer.writerow(
            (text_cell(body.metric or ""), text_cell(row.variant), row.n, *numbers, row.unfinished, row.failed)
        )
    return written.getvalue()


def as_markdown(body: TableBody) -> str:
    """The table as Markdown. A difference is bold if its interval excludes zero, and so is the best variant."""
    lines = [
        f"| variant | {_escaped(body.metric or 'no metric yet')} | spread | n | vs. {_escaped(body.baseline)} |",
        "|---|---|---|---|---|",
    ]
    for row in body.rows:
        name = f"**{_escaped(row.variant)}**" if row.variant == body.best else _escaped(row.variant)
        left = f" ({row.unfinished} not ended)" if row.unfinished else ""
        left += f" ({row.failed} failed)" if row.failed else ""
        lines.append(f"| {name} | {_short(row.mean)} | {_short(row.spread)} | {row.n}{left} | {difference_text(row)} |")
    return "\n".join(lines) + "\n"


def difference_text(row: RowBody) -> str:
    """A row's difference with half of its interval; bold if the interval excludes zero."""
    away = row.difference
    if away is None:
        return ""
    words = f"{away.mean:+.4g}" + ("" if away.half is None else f" ± {away.half:.3g}")
    return f"**{words}**" if away.half is not None and abs(away.mean) > away.half else words


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def text_cell(text: str) -> str:
    """A text for a cell of CSV: one that a spreadsheet would take for a formula begins with an apostrophe."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _escaped(text: str) -> str:
    plain = re.sub(r"\s+", " ", text)
    return re.sub(r"([\\|<>*_`\[\]])", r"\\\1", plain)
