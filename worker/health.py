"""Whether a worker of this machine is at work: `python -m worker.health --kind distill`, for a container's health check."""

import argparse
import sys

from models.queue.wake_up import KINDS
from worker.ledger import presence


def main() -> int:
    """0 if the database has lately heard of a worker of the kind on this host, else 1."""
    parser = argparse.ArgumentParser(prog="python -m worker.health", description=main.__doc__)
    parser.add_argument("--kind", choices=KINDS, required=True)
    kind = parser.parse_args().kind
    if presence.alive_here(kind):
        return 0
    print(f"no {kind} worker of the host {presence.host()} has been heard of lately", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
