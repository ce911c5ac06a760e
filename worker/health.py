"""Health check of a worker's container: `python -m worker.health --kind distill`."""

import argparse
import sys

from models.queue.wake_up import KINDS
from worker.ledger import presence


def main() -> int:
    """Check for a recent heartbeat of a worker of the kind on this host; exits with 0 if there is one, else with 1."""
    parser = argparse.ArgumentParser(prog="python -m worker.health", description=main.__doc__)
    parser.add_argument("--kind", choices=KINDS, required=True)
    kind = parser.parse_args().kind
    if presence.alive_here(kind):
        return 0
    print(f"no recent heartbeat of a {kind} worker on the host {presence.host()}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
