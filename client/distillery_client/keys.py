"""Keys: create, read, rotate, revoke. All methods except `me` need a key with the scope `admin`."""

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
        """The key of this client: its scopes, limits and usage."""
        return self.get("me")

    def create(self, name: str, scopes: list[str], **values: Any) -> Record:
        """Create a key. `key` in the result is its secret, which is never shown again. The request is not retried: if the
        response is lost, revoke the key and create another one.

        Args:
            values: `expires_days`, and `limits` that differ from those of the key of this client.
        """
        spec = {"name": name, "scopes": scopes} | values
        return dict(self.connection.request("POST", "keys", json=spec).json())

    def get(self, identifier: str) -> Record:
        return dict(self.connection.request("GET", f"keys/{identifier}").json())

    def list(self) -> Iterator[Record]:
        """All keys, newest first, including revoked ones."""
        return pages(self.connection, "keys", {})

    def rotate(self, identifier: str, grace_seconds: int = 0) -> Record:
        """Replace the secret of a key. The new one is in `key`; the old one stays valid for `grace_seconds`."""
        body = {"grace_seconds": grace_seconds}
        return dict(self.connection.request("POST", f"keys/{identifier}/rotate", json=body).json())

    def revoke(self, identifier: str) -> Record:
        """Revoke a key permanently.

        Raises:
            Conflict: it is the last key with the scope `admin`.
        """
        headers = {"Idempotency-Key": identifier}  # marks the POST as idempotent
        return dict(self.connection.request("POST", f"keys/{identifier}/revoke", headers=headers).json())
