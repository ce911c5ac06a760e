"""`distillery unpack`."""

from pathlib import Path
from typing import Annotated

import typer

from distillery_client import output
from distillery_client.errors import DistilleryError
from distillery_client.huffman_reading import BadFile, to_safetensors
from distillery_client.session import FAILED


def unpack(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file of the export `huffman`.")],
    into: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write. By default the same name with .safetensors."),
    ] = None,
) -> None:
    """Decode a student's Huffman codes to plain weights: a safetensors file, equal to the job's own bit for bit."""
    path = into or file.with_suffix(".safetensors")
    try:
        content = to_safetensors(file.read_bytes())
        path.write_bytes(content)
    except (BadFile, OSError) as error:
        output.print_error(DistilleryError(f"{file}: {error}"))
        raise typer.Exit(FAILED) from error
    if context.obj.json:
        output.print_json({"file": str(path), "size": len(content), "packed_size": file.stat().st_size})
    else:
        output.errors.print(f"{path}: {len(content):,} bytes, {len(content) / file.stat().st_size:.1f} times as large")
