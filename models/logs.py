"""Logging of all processes: JSON lines on standard error, or coloured text on a terminal.

Log records of libraries, sent through the `logging` module, have the same format.
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
    """Configure logging. In production the format is JSON also on a terminal."""
    pretty = sys.stderr.isatty() and settings().environment != "production"
    output: list[Any] = [structlog.dev.ConsoleRenderer()] if pretty else [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]  # fmt: skip
    structlog.configure(
        processors=[*SHARED, structlog.processors.StackInfoRenderer(), *output],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    renderers = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *output]
    preprocessors = [*SHARED, structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder()]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=renderers, foreign_pre_chain=preprocessors))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("kombu.connection").setLevel(
        logging.ERROR
    )  # hides a warning that the filesystem transport has no host
