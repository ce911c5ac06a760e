"""Request and response bodies of experiments."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from api.http.bodies import ResponseBody
from models.spec.body import Body, Labels, Name
from models.spec.problems import Problem, complaint
from models.status import JobStatus

MOST_JOBS = 200
"""Most jobs of one experiment."""
SEED = "training.seed"
"""The field that does not name a variant: jobs that differ in nothing else are runs of the same variant."""
EXPERIMENT = "exp_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"
JOB = "job_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"
TEACHER = "tch_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"
Place = Annotated[str, StringConstraints(pattern=r"^[^.\x00]{1,64}(\.[^.\x00]{1,64}){0,7}$")]
PLACE = "names of fields, joined by dots: `training.learning_rate`, `objectives.1.temperature`"


class VariantSpec(Body):
    """One variant: a name, and the fields in which its spec differs from the base."""

    name: Name = Field(description="Name of the variant.", examples=["KD"])
    changes: dict[Place, Any] = Field(
        default_factory=dict,
        max_length=64,
        description=f"Values by place in the spec ({PLACE}).",
        examples=[{"objectives": [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9}]}],
    )


class ExperimentSpec(Body):
    """Several jobs: every variant with every combination of the grid's values."""

    name: Name = Field(description="Name of the experiment.", examples=["which loss"])
    labels: Labels = Field(default_factory=dict)
    base: dict[str, Any] = Field(
        description="What all jobs share: a job's spec, which need not be complete.",
        examples=[{"teacher": TEACHER, "student": {"network": "lenet5_half"}}],
    )
    grid: dict[Place, dict[Name, Any] | list[Any]] = Field(
        default_factory=dict,
        max_length=8,
        description=f"Values by place in the spec ({PLACE}): a list, or an object that names each value. Jobs that differ only"
        f" in `{SEED}` are runs of the same variant.",
        examples=[{"training.learning_rate": [0.001, 0.01], SEED: [0, 1, 2]}],
    )
    variants: list[VariantSpec] = Field(
        default_factory=list,
        max_length=MOST_JOBS,
        description="Named variants. With a grid, each variant has every combination of the grid.",
    )

    @model_validator(mode="after")
    def _has_variants(self) -> Self:
        if not self.grid and not self.variants:
            raise complaint(Problem("/grid", "is required, or `variants`"))
        empty = [Problem(f"/grid/{place}", "must have a value") for place, values in self.grid.items() if not values]
        if empty:
            raise complaint(*empty)
        return self


class MemberBody(ResponseBody):
    """A job of an experiment."""

    id: str
    seed: int | None = Field(description="Seed of its training.")
    status: JobStatus
    fraction: float | None = Field(description="Completed fraction; null before the job has started.")


class VariantBody(ResponseBody):
    """A variant and its jobs."""

    name: str
    jobs: list[MemberBody]


class ExperimentSummary(ResponseBody):
    """An experiment in a list."""

    id: str
    name: str
    labels: dict[str, str]
    status: Literal["running", "ended"] = Field(description="`ended` once all of its jobs have ended.")
    counts: dict[JobStatus, int] = Field(description="Number of jobs by status.")
    created_at: datetime
    links: dict[str, str]


class ExperimentBody(ExperimentSummary):
    """An experiment with its variants."""

    variants: list[VariantBody]
    spec: dict[str, Any] = Field(description="The request as sent.")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": EXPERIMENT,
                "name": "which loss",
                "labels": {},
                "status": "running",
                "counts": {"running": 1},
                "created_at": "2026-11-21T09:00:00Z",
                "links": {"self": f"http://127.0.0.1:8000/v1/experiments/{EXPERIMENT}"},
                "variants": [
                    {"name": "KD", "jobs": [{"id": JOB, "seed": 0, "status": "running", "fraction": 0.4}]},
                ],
                "spec": {"name": "which loss", "base": {"teacher": TEACHER}, "variants": [{"name": "KD"}]},
            }
        }
    )


class DifferenceBody(ResponseBody):
    """A mean of paired differences."""

    mean: float
    half: float | None = Field(
        description="Half of the 95 % interval of the mean (Student's t); null for a single pair."
    )
    n: int = Field(description="Number of pairs: seeds that both variants have.")


class RowBody(ResponseBody):
    """One variant in a table."""

    variant: str
    n: int = Field(description="Number of jobs with the metric.")
    mean: float | None
    spread: float | None = Field(description="Standard deviation over the jobs; null for fewer than two.")
    difference: DifferenceBody | None = Field(
        description="Difference from the baseline, paired by seed; null for the baseline itself and without pairs."
    )
    values: dict[str, float] = Field(description="Value by seed.")
    unfinished: int = Field(description="Number of jobs that have not ended.")
    failed: int = Field(description="Number of jobs that failed or were cancelled.")


class TableBody(ResponseBody):
    """The variants of an experiment, compared by one metric."""

    experiment: str
    name: str
    metric: str | None = Field(description="The compared metric; null if no job has one yet.")
    best_is: Literal["highest", "lowest"]
    best: str | None = Field(description="The variant with the best mean; null if there is none.")
    baseline: str = Field(description="The variant from which differences are taken.")
    metrics: list[str] = Field(description="Metrics that this table can compare.")
    rows: list[RowBody] = Field(description="Variants, in the order of the request.")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "experiment": EXPERIMENT,
                "name": "which loss",
                "metric": "accuracy",
                "best_is": "highest",
                "best": "DKD",
                "baseline": "KD",
                "metrics": ["accuracy", "bytes"],
                "rows": [
                    {
                        "variant": "DKD",
                        "n": 2,
                        "mean": 0.97,
                        "spread": 0.014,
                        "difference": {"mean": 0.01, "half": 0.02, "n": 2},
                        "values": {"0": 0.96, "1": 0.98},
                        "unfinished": 0,
                        "failed": 0,
                    }
                ],
            }
        }
    )
