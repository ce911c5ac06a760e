"""Writing while the database comes and goes: a ledger that knows its lease tries again for as long as that is held."""

import time
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import structlog

from models.database import AWAY

RETRY_SECONDS = 0.5

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Ledger = TypeVar("Ledger", bound="LeasedLedger")
log = structlog.get_logger(__name__)


class HeldLease(Protocol):
    """What a ledger has to know of a lease."""

    def check_held(self) -> None:
        """Raise `Taken` where the lease is not held any more."""


class LeasedLedger:
    """The rows of one attempt. Without a lease, everything is tried once."""

    def __init__(self, lease: HeldLease | None):
        self._lease = lease

    def read(self, query: Callable[[], Result]) -> Result:
        """What a query gives; tried again while the database is away and the lease is held.

        Raises:
            Taken: the lease was lost.
        """
        if self._lease is None:
            return query()
        while True:
            self._lease.check_held()
            try:
                return query()
            except AWAY as error:
                log.warning("database_away_retrying", error=str(error).partition("\n")[0])
                time.sleep(RETRY_SECONDS)


def retried(
    method: Callable[Concatenate[Ledger, Parameters], Result],
) -> Callable[Concatenate[Ledger, Parameters], Result]:
    """Have a ledger's method, which is one transaction, tried again while the database is away and the lease is held.

    A transaction whose commit was carried out, though its answer was lost, raises `Taken` when it is tried again, if it
    ended the attempt: the fence does not hold any more.
    """

    @wraps(method)
    def again(self: Ledger, /, *arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        return self.read(lambda: method(self, *arguments, **named))

    return again
