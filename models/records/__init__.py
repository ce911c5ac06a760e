"""One file per table. Importing this package registers all tables.

Belongs here: columns, indexes and constraints. Does not: queries. May import `models/database`.
"""

from models.records.artifact import Artifact
from models.records.attempt import Attempt
from models.records.checkpoint import Checkpoint
from models.records.event import Event
from models.records.experiment import Experiment
from models.records.idempotency import Idempotency
from models.records.inspection import Inspection
from models.records.job import Job
from models.records.key import Key
from models.records.metric import Metric
from models.records.mlflow_run import MlflowRun
from models.records.preview import Preview
from models.records.session import BrowserSession
from models.records.share import Share
from models.records.upload import Dataset, File, Teacher
from models.records.webhook import WebhookDelivery, WebhookSecret
from models.records.worker import Worker

__all__ = [
    "Artifact",
    "Attempt",
    "BrowserSession",
    "Checkpoint",
    "Dataset",
    "Event",
    "Experiment",
    "File",
    "Idempotency",
    "Inspection",
    "Job",
    "Key",
    "Metric",
    "MlflowRun",
    "Preview",
    "Share",
    "Teacher",
    "WebhookDelivery",
    "WebhookSecret",
    "Worker",
]
