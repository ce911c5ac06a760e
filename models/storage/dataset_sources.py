"""Datasets by reference: folders of the server and prefixes of buckets that the operator allows."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from models.settings import Settings

SCHEMES = ("file", "s3")


class SourceRefused(ValueError):
    """A reference is malformed, or the operator does not allow it; the message says which."""


@dataclass(frozen=True)
class Source:
    """Where the files of a dataset are: `scheme` is `file` or `s3`; `bucket` is empty for a folder; `path` has no `..`."""

    scheme: str
    bucket: str
    path: PurePosixPath

    @classmethod
    def parse(cls, reference: str) -> "Source":
        """A reference such as `s3://bucket/prefix` or `file:///folder`.

        Raises:
            SourceRefused: it is neither.
        """
        found = urlsplit(reference)
        path = PurePosixPath(found.path or "/")
        whole = found.scheme in SCHEMES and bool(found.netloc) == (found.scheme == "s3")
        if not whole or not path.is_absolute() or ".." in path.parts or found.query or found.fragment:
            raise SourceRefused("must be `s3://BUCKET/PREFIX` or `file:///FOLDER`, without `..`")
        return cls(found.scheme, found.netloc, path)

    def within(self, other: "Source") -> bool:
        """Whether this is `other` or below it."""
        return (self.scheme, self.bucket) == (other.scheme, other.bucket) and self.path.is_relative_to(other.path)

    @property
    def prefix(self) -> str:
        """The prefix in the bucket, without slashes at its ends."""
        return str(self.path).strip("/")


def allowed_source(reference: str, settings: Settings) -> Source:
    """The source of a reference.

    Raises:
        SourceRefused: it is malformed, or not below one that the operator allows.
    """
    source = Source.parse(reference)
    given = [each.strip() for each in settings.dataset_sources.split(",") if each.strip()]
    if not any(source.within(Source.parse(each)) for each in given):
        raise SourceRefused("is not below a source that the operator of this service allows (DISTILL_DATASET_SOURCES)")
    return source
