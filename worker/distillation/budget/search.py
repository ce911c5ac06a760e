"""The choice of a student for a budget: integers first, then as many channels or parameters as fit."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from worker.distillation import registry
from worker.distillation.budget.candidates import STEPS, Candidate, ways
from worker.distillation.budget.limits import CHOSEN, POINTER, Budget, budget_of, is_planned
from worker.distillation.budget.trial import BYTES_PART, Layer, Trial, expected_bytes, layers_of, least_bytes, measure
from worker.distillation.errors import Problem, SpecError
from worker.distillation.job import Job

PLANNING_SECONDS = 90.0
"""After this time the best student so far is taken, if one fits. The worker ends a check that chooses a student after 240 seconds."""
FOLDER = "budget"


def planned(job: Job) -> dict[str, Any] | None:
    """What to write into the job's spec: parts of its `student`, all its `transforms`, and `reasons` by place. None if nothing is left to
    choose.

    Raises:
        SpecError: no student keeps the budget; it says what the smallest one costs.
        ExportFailed: a student cannot be written.
    """
    student = job.spec["student"]
    budget = budget_of(student)
    if budget is None or is_planned(student):
        return None
    folder = job.folder / FOLDER
    folder.mkdir(exist_ok=True)
    try:
        search = Search(job, budget)
        found = search.run()
    finally:
        shutil.rmtree(folder)
    changes = found.candidate.changes(job.spec)
    chosen = {**found.facts(), "tried": [each.facts() for each in search.tried]}
    own = changes["student"] | {"budget": {**student["budget"], CHOSEN: chosen}}
    return {"student": own, "transforms": changes["transforms"], "reasons": _reasons(found, budget)}


def _reasons(found: Trial, budget: Budget) -> Mapping[str, str]:
    words = f"the largest student found that keeps the budget is {found.words()} before the training"
    place = "/student/width" if found.candidate.way == "width" else POINTER
    return {place: words}


@dataclass
class Search:
    """One search. `tried` are all students that were measured."""

    job: Job
    budget: Budget
    tried: list[Trial] = field(default_factory=list)
    refusals: list[SpecError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._end = time.monotonic() + PLANNING_SECONDS
        self._layers: dict[Candidate, tuple[Layer, ...]] = {}

    def run(self) -> Trial:
        """The largest student that fits: whole, or in integers, or reduced as little as possible.

        Raises:
            SpecError: none fits.
        """
        reductions = list(ways(self.budget, self.job.spec))
        precisions = self._precisions()
        for rounded in precisions:
            whole = self._try(Candidate(rounded))
            if whole is not None and whole.fits(self.budget):
                return whole
        for way in reductions:
            for rounded in reversed(precisions):
                found = self._reduced(way, rounded)
                if found is not None:
                    return found
        raise self._nothing_fits(reductions)

    def _precisions(self) -> list[bool]:
        """Without and with int8, as far as the budget allows it and its file holds the weights."""
        coded = any(registry.find("transforms", each["name"]).encodes for each in self.job.spec.get("transforms") or ())
        found = [False] if coded or self.budget.file != "packed" else []
        found += [True] if "int8" in self.budget.allow else []
        if not found:
            words = "must have `int8`: no transform of the job stores weights as codes, so there is nothing to pack"
            raise SpecError([Problem(f"{POINTER}/allow", words)])
        return found

    def _reduced(self, way: str, rounded: bool) -> Trial | None:
        """The largest student that fits with this reduction; None if the smallest does not fit.

        The size of a file is known up to what all files have in common, so the first student to be measured is the largest whose file
        should be small enough. If it does not fit, or only the time is limited, the others are found by bisection.
        """
        least = self._smallest(way, rounded)
        if least is None:
            return None
        best = self._try(Candidate(rounded, way, least), always=True)
        if best is None or not best.fits(self.budget):
            return None
        low, high = least, STEPS
        probe = self._largest_by_bytes(best)
        if probe is not None:
            high = probe + 1
        while high - low > 1 and time.monotonic() < self._end:
            step = (low + high) // 2 if probe is None else probe
            trial = self._try(Candidate(rounded, way, step))
            if trial is not None and trial.fits(self.budget):
                best, low, probe = trial, step, None
            else:
                small = trial is not None and trial.fits_bytes(self.budget)
                high, probe = step, None if small else step - 1
        return best

    def _largest_by_bytes(self, smallest: Trial) -> int | None:
        """The largest step whose file should keep the limit of bytes; None without a limit."""
        if self.budget.bytes is None:
            return None
        candidate = smallest.candidate
        common = smallest.bytes - self._expected_bytes(candidate)
        most = BYTES_PART * self.budget.bytes - common
        low, high = candidate.step, STEPS
        while high - low > 1:
            middle = (low + high) // 2
            fits = self._expected_bytes(replace(candidate, step=middle)) <= most
            low, high = (middle, high) if fits else (low, middle)
        return low

    def _smallest(self, way: str, rounded: bool) -> int | None:
        """The least step at which there is a student; None, with the reason kept, if there is none at any step."""
        refusal = None
        for step in (1, 2, 4, 8, 16, STEPS - 1):
            try:
                self._layers_of(Candidate(rounded, way, step))
            except SpecError as error:
                refusal = error
                continue
            return step
        if refusal is not None:
            self.refusals.append(refusal)
        return None

    def _expected_bytes(self, candidate: Candidate) -> int:
        return expected_bytes(self._layers_of(candidate), candidate, self.budget)

    def _layers_of(self, candidate: Candidate) -> tuple[Layer, ...]:
        """The layers of a candidate, for which it is built once.

        Raises:
            SpecError: there is no such student.
        """
        if candidate not in self._layers:
            self._layers[candidate] = layers_of(candidate, self.job)
        return self._layers[candidate]

    def _try(self, candidate: Candidate, always: bool = False) -> Trial | None:
        """Measure a candidate; None if its weights alone are larger than the file may be, unless `always`."""
        most = None if always else self.budget.bytes
        if most is not None and least_bytes(self._layers_of(candidate), candidate, self.budget) > most:
            return None
        self.tried.append(measure(candidate, self.job, self.budget, self.job.folder / FOLDER))
        return self.tried[-1]

    def _nothing_fits(self, reductions: list[str]) -> SpecError:
        """What can be reached, for the limits that cannot."""
        if self.refusals:
            why = "; ".join(problem.message for error in self.refusals for problem in error.problems)
            return SpecError([Problem(f"{POINTER}/allow", f"has what this network does not take: {why}")], HINT)
        if not self.tried:
            self._try(Candidate("int8" in self.budget.allow), always=True)
        budget, problems = self.budget, []
        smallest = min(self.tried, key=lambda trial: trial.bytes)
        if not smallest.fits_bytes(budget):
            problems.append(Problem(f"{POINTER}/bytes", f"cannot be reached: the smallest is {smallest.words()}"))
        fastest = min(self.tried, key=lambda trial: trial.milliseconds or 0.0)
        if not fastest.fits_time(budget):
            words = f"cannot be reached: the fastest is {fastest.words()}"
            problems.append(Problem(f"{POINTER}/milliseconds", words))
        if not problems:
            words = f"cannot be kept together: the smallest is {smallest.words()}; the fastest is {fastest.words()}"
            problems.append(Problem(POINTER, words))
        unused = [name for name in ("int8", "width", "prune_channels", "factorise") if name not in budget.allow]
        more = f" Or allow {' or '.join(f'`{name}`' for name in unused)}." if unused and not reductions else ""
        return SpecError(problems, HINT + more)


HINT = "Raise the limits to what can be reached, or choose a smaller network."
