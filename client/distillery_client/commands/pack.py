"""`distillery pack`."""

from pathlib import Path
from typing import Annotated

import typer

from distillery_client import output
from distillery_client.commands.uploads import input_contract
from distillery_client.errors import DistilleryError
from distillery_client.own_network import network_of
from distillery_client.own_network import pack as pack_network
from distillery_client.session import FAILED


def pack(
    context: typer.Context,
    factory: Annotated[str, typer.Argument(help="What makes the network: module:function, such as mynet:build.")],
    size: Annotated[str, typer.Option("--input", help="Channels, height and width that it reads, such as 3x64x64.")],
    mean: Annotated[str, typer.Option(help="Mean of each channel that it was trained with.")],
    std: Annotated[str, typer.Option(help="Standard deviation of each channel.")],
    file: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    weights: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, help="Its weights: .pth, .pt or .safetensors.")
    ] = None,
    class_names: Annotated[str | None, typer.Option(help="Names of the classes, comma-separated.")] = None,
    student: Annotated[
        bool, typer.Option("--student", help="Add what training needs: it can be a student too.")
    ] = False,
) -> None:
    """Write a network of your own to one file that can be uploaded: its graph and weights, and none of its Python.

    This runs your network's code on your machine. The service never does.
    """
    contract = input_contract(size, mean, std)
    names = class_names.split(",") if class_names else []
    try:
        found = pack_network(network_of(factory, weights), file, **contract, class_names=names, student=student)
    except DistilleryError as error:
        output.print_error(error)
        raise typer.Exit(FAILED) from error
    if context.obj.json:
        output.print_json(found | {"file": str(file), "size": file.stat().st_size})
    else:
        output.errors.print(f"{file}: {found['classes']} classes, {file.stat().st_size} bytes. Next: upload it with")
        output.errors.print(f"  distillery teachers upload {file}")
