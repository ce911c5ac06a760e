"""`Content-Digest` and `Repr-Digest` (RFC 9530), and the older `Digest` (RFC 3230): parsing, checking and writing SHA-256 digests."""

import base64
import binascii
import re

from api.http.errors import BadHeader, DigestMismatch

HEX = re.compile(r"[0-9A-Fa-f]{64}")
_OLD = re.compile(r"\s*sha-256\s*=([A-Za-z0-9+/=]+)\s*", re.IGNORECASE)
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
            if len(digest) == 48 and HEX.fullmatch(match[1]):
                raise BadHeader("The SHA-256 in the digest header is hexadecimal. Write its 32 bytes in base64.")
            if len(digest) != 32:
                raise BadHeader(f"The SHA-256 in the digest header has {len(digest)} bytes. It must have 32.")
            found.add(digest.hex())
    return found


def modern(digest: str | None, content_md5: str | None) -> str | None:
    """A `Digest` header (RFC 3230, `SHA-256=BASE64`) as `Repr-Digest` has it; None without a SHA-256.

    Raises:
        BadHeader: there is a `Content-MD5`, which nothing would compare.
    """
    if content_md5 is not None:
        raise BadHeader("Content-MD5 is not checked. Leave it out, or send 'Repr-Digest: sha-256=:BASE64:' instead.")
    matches = (_OLD.fullmatch(member) for member in (digest or "").split(","))
    return next((f"sha-256=:{match[1]}:" for match in matches if match), None)


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
