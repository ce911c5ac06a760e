"""`distillery teachers`, `distillery datasets` and `distillery files`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from distillery_client import output
from distillery_client.packed_file import PROGRAM, packed_program, teacher_spec
from distillery_client.progress import transfer
from distillery_client.session import session
from distillery_client.uploads import RANGE_BYTES, Uploads

teachers = typer.Typer(no_args_is_help=True, help="Trained networks to distil from.")
datasets = typer.Typer(no_args_is_help=True, help="Images with labels.")
files = typer.Typer(no_args_is_help=True, help="Other inputs of jobs: initial weights, statistics of a teacher.")

Bytes = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="File to upload.")]
Name = Annotated[str | None, typer.Option(help="Name of the upload. Default: the name of the file.")]
JsonObject = Annotated[str, typer.Option(help="A JSON object.")]
Identifier = Annotated[str, typer.Argument(metavar="ID")]


@teachers.command("upload")
def upload_teacher(
    context: typer.Context,
    file: Bytes,
    network: Annotated[
        str | None,
        typer.Option(help="Network of the catalogue, such as lenet5. If left out, the weights or the program tell."),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Number of classes. If left out, the weights tell.")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--input", help="Channels, height and width of its input, such as 1x32x32.")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="Mean of each channel used in its training, such as 0.13.")] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation of each channel used in its training.")] = None,
    name: Name = None,
    class_names: Annotated[str | None, typer.Option(help="Names of the classes, comma-separated.")] = None,
    options: JsonObject = "{}",
    dataset: Annotated[
        str | None, typer.Option(help="Id of a dataset with labels, by whose images what is left out is found.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Which weights of a file with several: auto, raw, averaged, or a path within the file."),
    ] = None,
) -> None:
    """Upload a state dict (safetensors, .pt or .pth), a packed network or an ONNX file, and wait for its inspection.

    A packed network (`distillery pack`) contains its own description. An ONNX file needs --classes, --input, --mean and
    --std. A state dict needs --input, --mean and --std, or a --dataset; --network and --classes are found if left out.
    """
    packed = packed_program(file) if network in (None, PROGRAM) else None
    known = teacher_spec(packed) if packed else {}
    if network is None and file.suffix == ".onnx":
        network = PROGRAM
    contract = _contract(size, mean, std)
    given: dict[str, Any] = {"network": network, "classes": classes, "input": contract}
    given |= {"dataset": dataset, "weights": weights}
    if class_names:
        given["class_names"] = class_names.split(",")
    spec = known | {key: value for key, value in given.items() if value is not None}
    needed = [] if dataset else [("--input (or --dataset)", "input")]
    if spec.get("network") == PROGRAM:
        needed = [("--input", "input"), ("--classes", "classes")]
    missing = [option for option, key in needed if key not in spec]
    if missing:
        raise typer.BadParameter(f"{' and '.join(missing)} must be given: the file does not contain it")
    _send(context, "teachers", file, name, spec | {"options": json_object(options, "--options")})


def _contract(size: str | None, mean: str | None, std: str | None) -> dict[str, Any] | None:
    """The input contract from its options, all of which must be given together; None without them."""
    if size is None and mean is None and std is None:
        return None
    if size is None or mean is None or std is None:
        raise typer.BadParameter("give --input, --mean and --std together")
    return input_contract(size, mean, std)


@datasets.command("upload")
def upload_dataset(
    context: typer.Context,
    file: Bytes,
    name: Name = None,
    options: JsonObject = "{}",
    resume: Annotated[
        str | None, typer.Option(metavar="ID", help="Continue the broken upload of this dataset.")
    ] = None,
) -> None:
    """Upload images (a zip or tar of images, npz or Parquet) and wait for their inspection."""
    _send(context, "datasets", file, name, {"options": json_object(options, "--options")}, resume)


@files.command("upload")
def upload_file(
    context: typer.Context,
    file: Bytes,
    kind: Annotated[str, typer.Option(help="Kind of the file: weights, statistics, …")],
    name: Name = None,
) -> None:
    """Upload another input of a job and wait for its inspection."""
    _send(context, "files", file, name, {"kind": kind})


def _send(
    context: typer.Context, kind: str, file: Path, name: str | None, spec: dict[str, Any], resume: str | None = None
) -> None:
    with session(context) as client:
        uploads: Uploads = getattr(client, kind)
        record = uploads.get(resume) if resume else uploads.create(name=name or file.stem, **spec)
        if not resume and file.stat().st_size > 4 * RANGE_BYTES:
            output.errors.print(
                f"{record['id']}: if the upload breaks off, repeat the command with --resume {record['id']}"
            )
        with transfer(output.errors, file.name) as moved:
            uploads.upload(record, file, moved)
        with output.errors.status("Inspecting …"):
            record = uploads.wait(record["id"])
        _show(context, record)


def _show(context: typer.Context, record: dict[str, Any]) -> None:
    if context.obj.json:
        output.print_json(record)
    else:
        output.print_record(record)
        output.print_findings(record)


def _add_reading_commands(app: typer.Typer, kind: str) -> None:
    """Add `list`, `show` and `delete`, which are the same for every kind of upload."""

    @app.command("list")
    def list_(context: typer.Context) -> None:
        """List uploads, newest first."""
        with session(context) as client:
            records = getattr(client, kind).list()
            if context.obj.json:
                output.print_json(list(records))
            else:
                output.print_table(records, ("id", "name", "status", "size", "created_at"))

    @app.command("show")
    def show(context: typer.Context, identifier: Identifier) -> None:
        """Show an upload and the findings of its inspection."""
        with session(context) as client:
            _show(context, getattr(client, kind).get(identifier))

    @app.command("delete")
    def delete(context: typer.Context, identifier: Identifier) -> None:
        """Delete an upload and its bytes."""
        with session(context) as client:
            getattr(client, kind).delete(identifier)


_add_reading_commands(teachers, "teachers")
_add_reading_commands(datasets, "datasets")
_add_reading_commands(files, "files")


def input_contract(size: str, mean: str, std: str) -> dict[str, Any]:
    """Parse `1x32x32`, `0.13` and `0.31` into an input contract.

    Raises:
        typer.BadParameter: a text has another form.
    """
    try:
        channels, height, width = (int(part) for part in size.lower().split("x"))
        numbers = {"mean": [float(part) for part in mean.split(",")], "std": [float(part) for part in std.split(",")]}
    except ValueError as error:
        raise typer.BadParameter("write --input as 1x32x32 and --mean and --std as comma-separated numbers") from error
    return {"channels": channels, "height": height, "width": width, **numbers}


def json_object(text: str, option: str) -> dict[str, Any]:
    """Parse the JSON object of an option.

    Raises:
        typer.BadParameter: the text is not JSON or not an object.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{option} must be a JSON object")
    return value
