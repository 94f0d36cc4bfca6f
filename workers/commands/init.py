"""``failsoft init``: creates a new pipeline to edit."""

from __future__ import annotations

import re
import shlex
import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from failsoft.workers.commands import output
from failsoft.workers.commands.error_codes import CommandFailed

if TYPE_CHECKING:
    from failsoft.workers.operations.scaffold import Shape

MODEL = "my-model"


def register(root: typer.Typer) -> None:
    """Adds the command to the command line."""
    root.command("init")(init)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    name: Annotated[
        str | None,
        typer.Option(
            help="The pipeline's name; it prefixes the topics. Default: the folder's name.", show_default=False
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="The name of the primary model.")] = MODEL,
    onnx: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A model file: it becomes version 1 and fills in the card.", show_default=False
        ),
    ] = None,
) -> None:
    """Create a new pipeline: pipeline.toml, the model's card.toml, a folder for model.onnx, and example events.

    Edit pipeline.toml and card.toml for your model. With --onnx the features in the card come from the model file.

    **Example**: `failsoft init fraud --model fraud-score --onnx model.onnx`
    """
    from failsoft.schemas.model_version import check_model_name
    from failsoft.topics.names import check_name
    from failsoft.workers.operations import scaffold

    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "pipeline"
    try:
        check_name(name)
    except ValueError as e:
        raise typer.BadParameter(str(e), param_hint="--name") from None
    try:
        check_model_name(model)
    except ValueError as e:
        raise typer.BadParameter(str(e), param_hint="--model") from None
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CommandFailed(f"{folder} exists and is not empty: nothing was written; name another folder")
    except OSError as e:
        raise CommandFailed(f"{folder} cannot be read: {e.strerror}; name another folder") from None
    shape = _shape(onnx) if onnx else scaffold.EXAMPLE
    packaged = files("failsoft.workers").joinpath("templates")
    templates = {t.name: t.read_text("utf-8") for t in packaged.iterdir() if t.is_file()}
    made = scaffold.files(name, model, templates, shape)
    artifact = folder / "models" / "repository" / model / "1" / "model.onnx"
    try:
        for path, text in made.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, "utf-8")
            typer.echo(f"made {folder / path}")
        if onnx:
            shutil.copyfile(onnx, artifact)
            typer.echo(f"copied {artifact}")
    except BrokenPipeError:
        raise
    except OSError as e:
        raise CommandFailed(f"{e.filename or folder} cannot be written: {e.strerror}; name another folder") from None
    if not onnx:
        output.note(
            f"copy your model to {artifact}, and describe its features in {artifact.parent.parent / 'card.toml'}"
        )
    for note in shape.notes:
        output.note(note)
    pipeline = f"--pipeline {shlex.quote(str(folder))}"
    events = f"failsoft publish {shlex.quote(str(folder / 'events.ndjson'))} {pipeline}"
    typer.echo(output.next_commands([f"failsoft topics apply {pipeline}", f"failsoft worker {pipeline}", events]))


def _shape(onnx: Path) -> Shape:
    from failsoft.models.runtime import session
    from failsoft.workers.operations import scaffold

    if not onnx.is_file():
        raise typer.BadParameter(f"{onnx}: no such file", param_hint="--onnx")
    try:
        return scaffold.shape_of(*session.ports(onnx))
    except ValueError as e:
        raise CommandFailed(f"{onnx}: {e}") from None
