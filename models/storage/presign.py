"""Links to a private S3 blob that carry their own permission.

AWS Signature Version 4 in the query, as in "Authenticating Requests: Using Query Parameters" of the Amazon S3 API
reference. The storage library signs links too, but cannot say under which name and type the blob is to be saved.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote, urlsplit


@dataclass(frozen=True)
class Signer:
    """Signs links to one bucket at `endpoint`, the address at which clients reach it (path-style)."""

    endpoint: str
    bucket: str
    prefix: str
    access_key: str
    secret_key: str
    region: str

    def link(self, key: str, seconds: int, file_name: str, content_type: str) -> str:
        """A link to GET a blob for so many seconds, answered with this name and type."""
        answer = {
            "response-content-disposition": f"attachment; filename*=UTF-8''{quote(file_name, safe='')}",
            "response-content-type": content_type,
        }
        return self.signed(key, seconds, datetime.now(UTC), answer)

    def signed(
        self, key: str, seconds: int, moment: datetime, query: dict[str, str], method: Literal["GET", "DELETE"] = "GET"
    ) -> str:
        """The link signed at a given moment, with further query parameters."""
        url = urlsplit(self.endpoint.rstrip("/"))
        path = quote("/".join(part for part in (url.path, self.bucket, self.prefix, key) if part))
        path = path if path.startswith("/") else f"/{path}"
        stamp, day = moment.strftime("%Y%m%dT%H%M%SZ"), moment.strftime("%Y%m%d")
        scope = f"{day}/{self.region}/s3/aws4_request"
        query = query | {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{self.access_key}/{scope}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(seconds),
            "X-Amz-SignedHeaders": "host",
        }
        encoded = "&".join(f"{quote(name, safe='')}={quote(query[name], safe='')}" for name in sorted(query))
        request = "\n".join((method, path, encoded, f"host:{url.netloc}\n", "host", "UNSIGNED-PAYLOAD"))
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
        signature = hmac.new(self._signing_key(day), text.encode(), hashlib.sha256).hexdigest()
        return f"{url.scheme}://{url.netloc}{path}?{encoded}&X-Amz-Signature={signature}"

    def _signing_key(self, day: str) -> bytes:
        key = f"AWS4{self.secret_key}".encode()
        for part in (day, self.region, "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return key
