"""Keys: make, look, rotate, revoke. All but `me` need a key with the scope `admin`."""

from collections.abc import Iterator
from typing import Any

from distillery_client.connection import Connection
from distillery_client.paging import pages
from distillery_client.waiting import Record


class Keys:
    """`client.keys`."""

    def __init__(self, connection: Connection):
        self.connection = connection

    def me(self) -> Record:
        """The key that this client sends: what it may do and use, and what it uses."""
        return self.get("me")

    def create(self, name: str, scopes: list[str], **values: Any) -> Record:
        """A new key; `key` in the answer is its secret, which is never shown again. It is not sent twice by itself: if
        the answer is lost, revoke the key and make another one.

        Args:
            values: `expires_days`, and `limits` where they differ from the service's.
        """
        spec = {"name": name, "scopes": scopes} | values
        return dict(self.connection.request("POST", "keys", json=spec).json())

    def get(self, identifier: str) -> Record:
        return dict(self.connection.request("GET", f"keys/{identifier}").json())

    def list(self) -> Iterator[Record]:
        """All keys, newest first, those that were revoked too."""
        return pages(self.connection, "keys", {})

    def rotate(self, identifier: str, grace_seconds: int = 0) -> Record:
        """The key with a new secret in `key`; the old one opens for so many seconds more."""
        body = {"grace_seconds": grace_seconds}
        return dict(self.connection.request("POST", f"keys/{identifier}/rotate", json=body).json())

    def revoke(self, identifier: str) -> Record:
        """End a key for good.

        Raises:
            Conflict: it is the last that may manage keys.
        """
        headers = {"Idempotency-Key": identifier}  # harmless to repeat
        return dict(self.connection.request("POST", f"keys/{identifier}/revoke", headers=headers).json())
