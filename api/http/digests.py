"""`Content-Digest` and `Repr-Digest` (RFC 9530): parsing, checking and writing SHA-256 digests."""

import base64
import binascii
import re

from api.http.errors import BadHeader, DigestMismatch

_MEMBER = re.compile(r"\s*sha-256\s*=\s*:([A-Za-z0-9+/=]*):\s*(?:;.*)?")


def announced(*headers: str | None) -> set[str]:
    """The SHA-256 digests in digest headers, in hex. Other algorithms are ignored (RFC 9530).

    Raises:
        BadHeader: a SHA-256 digest is malformed.
    """
    found = set()
    for member in (member for header in headers if header for member in header.split(",")):
        if member.strip().lower().startswith("sha-256") and (match := _MEMBER.fullmatch(member)) is None:
            raise BadHeader("The digest header is malformed. Write it as 'sha-256=:BASE64:'.")
        if match := _MEMBER.fullmatch(member):
            try:
                digest = base64.b64decode(match[1], validate=True)
            except binascii.Error as error:
                raise BadHeader("The digest header is malformed: the SHA-256 is not valid base64.") from error
            if len(digest) != 32:
                raise BadHeader(f"The SHA-256 in the digest header has {len(digest)} bytes. It must have 32.")
            found.add(digest.hex())
    return found


def require(expected: set[str], sha256: str) -> None:
    """Check received bytes against the digest headers.

    Raises:
        DigestMismatch: a header names another SHA-256.
    """
    if expected - {sha256}:
        raise DigestMismatch(f"The SHA-256 of the received bytes is {sha256}, not that of the header. Send them again.")


def header_of(sha256: str) -> str:
    """The value of a digest header."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"
