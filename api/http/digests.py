"""`Content-Digest` and `Repr-Digest` (RFC 9530): the SHA-256 of bytes, as a client announces it and as we answer it."""

import base64
import binascii
import re

from api.http.errors import BadHeader, DigestMismatch

_MEMBER = re.compile(r"\s*sha-256\s*=\s*:([A-Za-z0-9+/=]*):\s*(?:;.*)?")


def announced(*headers: str | None) -> set[str]:
    """The SHA-256s, in hex, that digest headers name; other algorithms are ignored, as RFC 9530 says.

    Raises:
        BadHeader: one names a SHA-256 that is none.
    """
    found = set()
    for member in (member for header in headers if header for member in header.split(",")):
        if member.strip().lower().startswith("sha-256") and (match := _MEMBER.fullmatch(member)) is None:
            raise BadHeader("Write a digest as 'sha-256=:BASE64:'.")
        if match := _MEMBER.fullmatch(member):
            try:
                digest = base64.b64decode(match[1], validate=True)
            except binascii.Error as error:
                raise BadHeader("The digest is not base64.") from error
            if len(digest) != 32:
                raise BadHeader(f"A SHA-256 has 32 bytes, not {len(digest)}.")
            found.add(digest.hex())
    return found


def require(expected: set[str], sha256: str) -> None:
    """Refuse bytes that are not those that were announced.

    Raises:
        DigestMismatch: with the SHA-256 that was seen.
    """
    if expected - {sha256}:
        raise DigestMismatch(f"The SHA-256 of the bytes that arrived is {sha256}. Send them again.")


def header_of(sha256: str) -> str:
    """The value of a digest header."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"
