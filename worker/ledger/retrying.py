"""Retries of database operations: a ledger with a lease retries for as long as the lease is held."""

import time
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import structlog

from models.database import UNAVAILABLE

RETRY_SECONDS = 0.5

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Ledger = TypeVar("Ledger", bound="LeasedLedger")
log = structlog.get_logger(__name__)


class HeldLease(Protocol):
    """The part of a lease that a ledger needs."""

    def check_held(self) -> None:
        """Raise `Taken` if the lease is not held any more."""


class LeasedLedger:
    """The rows of one attempt. Without a lease, nothing is retried."""

    def __init__(self, lease: HeldLease | None):
        self._lease = lease

    def read(self, query: Callable[[], Result]) -> Result:
        """The result of a query, which is retried while the database is unavailable and the lease is held.

        Raises:
            Taken: the lease was lost.
        """
        if self._lease is None:
            return query()
        while True:
            self._lease.check_held()
            try:
                return query()
            except UNAVAILABLE as error:
                log.warning("database_unavailable_retrying", error=str(error).partition("\n")[0])
                time.sleep(RETRY_SECONDS)


def retried(
    method: Callable[Concatenate[Ledger, Parameters], Result],
) -> Callable[Concatenate[Ledger, Parameters], Result]:
    """Retry a ledger's method, which is one transaction, while the database is unavailable and the lease is held.

    If the response to a commit that ended the attempt was lost, the retry raises `Taken`: the attempt does not hold the
    row any more.
    """

    @wraps(method)
    def again(self: Ledger, /, *arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        return self.read(lambda: method(self, *arguments, **named))

    return again
