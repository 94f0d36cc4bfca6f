"""``failsoft init``: creates a new pipeline to edit, and vets its model if one is given."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from failsoft.workers.commands import output
from failsoft.workers.commands.error_codes import REFUSED, CommandFailed

if TYPE_CHECKING:
    from pydantic import ValidationError

    from failsoft.workers.operations.scaffold import Shape

DEFAULT_BOOTSTRAP = "127.0.0.1:9092"
"""Where ``failsoft kafka`` listens without ``--port``."""

DEFAULT_REGISTRY = "http://127.0.0.1:8081"
"""Where registries listen on their own machine if they are not told otherwise."""


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
    model: Annotated[
        str | None,
        typer.Option(
            help="The name of the primary model. Default: the model file's name, or my-model.", show_default=False
        ),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A model file: it becomes version 1, fills in the card, and is vetted.",
            show_default=False,
        ),
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL",
            help="The label whose probability is the score of a binary model. Only with --onnx.",
            show_default=False,
        ),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A schema of the events (.avsc, .proto, or JSON Schema in .json): it fills in the card's features, "
            "and [input] in pipeline.toml.",
            show_default=False,
        ),
    ] = None,
    message: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The message that an event is. Default: the first in the .proto that no other message holds.",
            show_default=False,
        ),
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help=f"The schema registry. Default with an Avro or Protobuf schema: {DEFAULT_REGISTRY}.",
            show_default=False,
        ),
    ] = None,
    topics: Annotated[
        list[str] | None,
        typer.Option(
            "--topic",
            metavar="TOPIC",
            help="A topic that has the events; may be repeated. Default: NAME.events, which topics apply creates.",
            show_default=False,
        ),
    ] = None,
    bootstrap: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="The brokers. Default: the Kafka that failsoft kafka runs here, or 127.0.0.1:9092.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Create a new pipeline: pipeline.toml, the model's card.toml, a folder for model.onnx, and example events.

    Edit pipeline.toml and card.toml for your model. With --onnx the card is written from the model file: features from
    its inputs, the output from its labels and from a run with made-up rows. With --schema the features come from the
    events' schema; with both, the schema says where an event has each of the model's features. What is a guess is said.
    Then the version is vetted as a worker would. Exit code: 3 if vetting refuses it, and the files are kept to be
    mended; 1 if the model can never serve or the schema cannot be used, and nothing is written.

    **Example**: `failsoft init fraud --onnx fraud-score.onnx --schema payment.avsc --topic payments`
    """
    from failsoft.schemas.model_version import check_model_name
    from failsoft.topics.names import check_name, check_topic
    from failsoft.workers.operations import scaffold

    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "pipeline"
    model = model or (scaffold.model_name(onnx.stem) if onnx else scaffold.MODEL)
    named = [(check_name, name, "--name"), (check_model_name, model, "--model")]
    for check, given, option in (*named, *((check_topic, topic, "--topic") for topic in topics or ())):
        try:
            check(given)
        except ValueError as e:
            raise typer.BadParameter(str(e), param_hint=option) from None
    if positive is not None and onnx is None:
        raise typer.BadParameter("only with --onnx: without a model there are no labels", param_hint="--positive")
    for option, value in (("--message", message), ("--registry", registry)):
        if value is not None and schema is None:
            raise typer.BadParameter("only with --schema", param_hint=option)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CommandFailed(f"{folder} exists and is not empty: nothing was written; name another folder")
    except OSError as e:
        raise CommandFailed(f"{folder} cannot be read: {e.strerror}; name another folder") from None
    servers, found = _kafka(bootstrap)
    model_shape = _described(onnx, positive) if onnx else None
    shape = _with_schema(schema, message, registry, model_shape) if schema else model_shape or scaffold.EXAMPLE
    _write(folder, name, model, shape, servers, onnx, topics or ())
    if schema and not topics:
        found = [f"pipeline.toml reads {name}.events: --topic names the topic that has your events", *found]
    for note in (*shape.notes, *found):
        output.note(f"note: {note}")
    card = folder / "models" / "repository" / model / "card.toml"
    pipeline = f"--pipeline {shlex.quote(str(folder))}"
    refused = _vet(folder, model, card) if onnx else False
    if not onnx:
        output.note(
            f"copy your model to {card.parent / '1' / 'model.onnx'}, describe its features in {card}, and try both: "
            f"failsoft models vet {pipeline}"
        )
    by_schema = "" if shape.source.format == "json" else f"--schema {shlex.quote(str(schema))} "
    by_schema += f"--message {shlex.quote(message)} " if message else ""
    events = f"failsoft publish {shlex.quote(str(folder / 'events.ndjson'))} {by_schema}{pipeline}"
    # The user's own topics have events, and made-up ones are not for their other readers.
    last = f"failsoft tail {pipeline} --from beginning" if topics else events
    edit = refused or bool(shape.unmatched)
    first = [f"${{EDITOR:-vi}} {shlex.quote(str(card))}", f"failsoft models vet {pipeline}"] if edit else []
    then = [] if refused else [f"failsoft worker {pipeline}", last]
    typer.echo(output.next_commands([*first, f"failsoft topics apply {pipeline}", *then]))
    if refused:
        raise typer.Exit(REFUSED)


def _words(error: ValidationError) -> str:
    """What is wrong, in our words."""
    return error.errors()[0]["msg"].removeprefix("Value error, ")


def _kafka(bootstrap: str | None) -> tuple[str, list[str]]:
    """The brokers for the pipeline file, and notes on how they were found."""
    if bootstrap is not None:
        from pydantic import ValidationError

        from failsoft.workers.pipeline_sections import Kafka

        try:
            return Kafka(bootstrap_servers=bootstrap).bootstrap_servers, []
        except ValidationError as e:
            raise typer.BadParameter(_words(e), param_hint="--bootstrap") from None
    from failsoft.workers.identity import NoOwnFolder
    from failsoft.workers.operations import local_kafka

    try:
        running = local_kafka.running()
    except (NoOwnFolder, OSError):  # then failsoft kafka could not note anything either
        running = []
    if not running:
        return DEFAULT_BOOTSTRAP, []
    more = f", the newest of {len(running)} that run here" if len(running) > 1 else ""
    at = running[0].bootstrap
    return at, [f"pipeline.toml names the Kafka of failsoft kafka at {at}{more}: --bootstrap names another"]


def _described(onnx: Path, positive: str | None) -> Shape:
    from failsoft.workers.operations import model_look

    if not onnx.is_file():
        raise typer.BadParameter(f"{onnx}: no such file", param_hint="--onnx")
    try:
        return model_look.described(onnx, positive)
    except model_look.CannotServe as e:
        raise CommandFailed(f"{e}\nnothing was written") from None
    except OSError as e:
        raise CommandFailed(f"{onnx} cannot be read: {e.strerror}") from None
    except ValueError as e:
        raise typer.BadParameter(str(e), param_hint="--positive") from None


def _with_schema(schema: Path, message: str | None, registry: str | None, model: Shape | None) -> Shape:
    """What the card and the pipeline file say of events of this schema. Nothing has been written."""
    if not schema.is_file():
        raise typer.BadParameter(f"{schema}: no such file", param_hint="--schema")
    from failsoft.workers.operations import schema_look
    from failsoft.workers.operations.schema_file import UnusableFile

    try:
        made = schema_look.described(schema, message, model)
    except UnusableFile as e:
        raise CommandFailed(f"{e}\nnothing was written") from None
    except OSError as e:
        raise CommandFailed(f"{schema} cannot be read: {e.strerror}") from None
    if registry is None and made.source.format == "json":
        return made
    url = _registry(registry or DEFAULT_REGISTRY)
    said = [] if registry else [f"pipeline.toml names a schema registry at {url}: --registry names another"]
    return replace(made, source=replace(made.source, registry=url), notes=[*made.notes, *said])


def _registry(url: str) -> str:
    from pydantic import ValidationError

    from failsoft.workers.schema_sections import SchemaRegistry

    try:
        return SchemaRegistry(url=url).url or url
    except ValidationError as e:
        raise typer.BadParameter(_words(e), param_hint="--registry") from None


def _write(
    folder: Path, name: str, model: str, shape: Shape, servers: str, onnx: Path | None, topics: Sequence[str]
) -> None:
    from failsoft.workers.operations import scaffold

    packaged = files("failsoft.workers").joinpath("templates")
    templates = {t.name: t.read_text("utf-8") for t in packaged.iterdir() if t.is_file()}
    made = scaffold.files(name, model, templates, shape, servers, topics)
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


def _vet(folder: Path, model: str, card: Path) -> bool:
    """Vets version 1 as a worker would, prints the verdict, and returns whether it is refused."""
    import os

    from failsoft.models.catalog.repository import Repository
    from failsoft.models.vetting.verdict import CheckResult
    from failsoft.schemas.config.refusal import Refused
    from failsoft.workers import settings
    from failsoft.workers.serving import loader

    made = settings.load(folder, {key: os.environ[key] for key in ("TMPDIR",) if key in os.environ})
    repository = Repository(Path(made.models.repository))
    output.note("vetting …")
    try:
        verdict = loader.vet(repository, repository.card(model), 1, loader.limits(made))
    except Refused as e:
        problems, notes = str(e).splitlines(), []
    else:
        problems = [f"{check.name}: {check.message}" for check in verdict.failed]
        notes = [f"{c.name}: {c.message}" for c in verdict.checks if c.result is CheckResult.NOTE]
    for note in notes:
        output.note(f"note: {note}")
    if not problems:
        typer.echo(f"vetted {model}@1: it may serve")
        return False
    for problem in problems:
        output.note(f"{model}@1 may not serve yet: {problem}")
    output.note(f"the files are kept: mend {card}, and vet it again")
    return True
