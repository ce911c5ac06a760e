"""How every process logs: lines of JSON on standard error, or coloured text where a person reads them.

What libraries say through the standard library's logging comes out in the same form.
"""

import logging
import sys
from typing import Any

import structlog

from models.settings import settings

SHARED: tuple[Any, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure() -> None:
    """Log from now on. In production it is JSON also on a terminal."""
    pretty = sys.stderr.isatty() and settings().environment != "production"
    last: list[Any] = [structlog.dev.ConsoleRenderer()] if pretty else [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]  # fmt: skip
    structlog.configure(
        processors=[*SHARED, structlog.processors.StackInfoRenderer(), *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    renderers = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
    before = [*SHARED, structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder()]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=renderers, foreign_pre_chain=before))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("kombu.connection").setLevel(logging.ERROR)  # it warns that a queue of files has no host
