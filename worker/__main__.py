"""A worker as a command: `python -m worker --kind distill|inspect`."""

import argparse
import sys

from worker import early_signals


def main() -> int:
    """Start a worker; returns its exit code."""
    early_signals.install()  # before the imports that take a second
    from models.cannot_start import explained
    from models.queue.wake_up import KINDS
    from models.settings import settings
    from worker.app import configure_logging, serve

    parser = argparse.ArgumentParser(prog="python -m worker", description="Work until told to stop.")
    parser.add_argument("--kind", choices=KINDS, required=True, help="distill: runs jobs; inspect: uploads and checks")
    arguments = parser.parse_args()
    with explained():
        settings()
    configure_logging()
    return serve(arguments.kind)


if __name__ == "__main__":
    sys.exit(main())
