"""Teachers, datasets and other files that users upload."""

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Record
from models.records.columns import JsonList, JsonObject, ShortText, Uploaded


class Teacher(Uploaded, Record):
    """A trained network. `input` is its input contract: channels, height, width, mean, std. `weights` says which
    weights of the file are read. Until the inspection has found them, `network` may be `auto`, `classes` 0 and `input` empty.
    `dataset` is the id of the dataset by whose images they are found."""

    __tablename__ = "teachers"

    network: Mapped[ShortText]
    options: Mapped[JsonObject] = mapped_column(default=dict)
    classes: Mapped[int]
    input: Mapped[JsonObject]
    class_names: Mapped[JsonList] = mapped_column(default=list)
    weights: Mapped[ShortText] = mapped_column(default="auto", server_default="auto")
    dataset: Mapped[str | None] = mapped_column(String(64))


class Dataset(Uploaded, Record):
    """Images with labels. `options` are the user's options for the inspection, such as an image size. `source` is where the
    files are, if they are not sent: `file:///folder` or `s3://bucket/prefix`."""

    __tablename__ = "datasets"

    options: Mapped[JsonObject] = mapped_column(default=dict)
    source: Mapped[str | None] = mapped_column(Text)


class File(Uploaded, Record):
    """Any other input of a job: initial weights, statistics, embeddings."""

    __tablename__ = "files"

    kind: Mapped[ShortText]
    options: Mapped[JsonObject] = mapped_column(default=dict)
