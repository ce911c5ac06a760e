"""`distillery catalogue`."""

from enum import StrEnum
from typing import Annotated

import typer

from distillery_client import output
from distillery_client.session import session


class Kind(StrEnum):
    """Sections of the catalogue."""

    OBJECTIVES = "objectives"
    PROCEDURES = "procedures"
    SOURCES = "sources"
    TRANSFORMS = "transforms"
    NETWORKS = "networks"


def catalogue(context: typer.Context, kind: Annotated[Kind | None, typer.Argument()] = None) -> None:
    """List the methods and networks that a job spec can name."""
    with session(context) as client:
        entries = client.catalogue()
        if context.obj.json:
            output.print_json(entries if kind is None else entries[kind])
            return
        for one in Kind if kind is None else (kind,):
            output.screen.print(f"\n[bold]{one}[/]")
            rows = [{"name": name, **about} for name, about in entries[one].items()]
            output.print_table(rows, ("name", "description", "paper"))
