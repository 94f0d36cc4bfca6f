"""``failsoft publish``: publishes the rows of a file as events."""

from __future__ import annotations

import asyncio
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from failsoft.topics.rights import Use
from failsoft.workers.commands import context, output
from failsoft.workers.commands.context import Json, Pipeline
from failsoft.workers.commands.error_codes import Interrupted

if TYPE_CHECKING:
    from failsoft.schemas.features.spec import Spec
    from failsoft.workers.operations.chosen_schema import ChosenSchema
    from failsoft.workers.operations.publish import Sent
    from failsoft.workers.settings import Settings


class Format(StrEnum):
    """The format of a file."""

    CSV = "csv"
    NDJSON = "ndjson"


_SUFFIXES = {".csv": Format.CSV, ".ndjson": Format.NDJSON, ".jsonl": Format.NDJSON, ".json": Format.NDJSON}


def register(root: typer.Typer) -> None:
    """Adds the command to the command line."""
    root.command("publish")(publish)


def rate(text: str) -> float:
    """Parses ``"500"`` or ``"500/s"`` into events a second. Raises BadParameter."""
    try:
        per_second = float(text.removesuffix("/s"))
    except ValueError:
        per_second = 0.0
    if not 0 < per_second < float("inf"):
        raise typer.BadParameter(f"{text!r} is not a rate: write a positive number of events a second, such as 500/s")
    return per_second


def publish(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV or NDJSON file; - is standard input.")],
    pipeline: Pipeline = None,
    topic: Annotated[
        str | None,
        typer.Option(help="The target topic. Default: the pipeline's first input topic.", show_default=False),
    ] = None,
    per_second: Annotated[
        float | None,
        typer.Option("--rate", metavar="N/s", parser=rate, help="Maximum events a second.", show_default=False),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD", help="The column or field used as the key. Default: the event's id.", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Stop after this number of events.", show_default=False)
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="The file's format. Default: by the file's name.", show_default=False),
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|latest",
            help="For Avro and Protobuf: a schema file (.avsc, .proto), which is registered under TOPIC-value, or the "
            "latest one there. Default: latest.",
            show_default=False,
        ),
    ] = None,
    message: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The Protobuf message. Default: the schema's first that no other message holds.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Publish the rows of FILE as events, and wait until all are acknowledged.

    A CSV row becomes an event in the pipeline's format. A column with a feature's name or path is sent by the type in
    the model's card: text stays text (a ZIP code), a tensor is a JSON list or base64, and a cell that is not of its
    type is sent as text, which workers find invalid. Without a card, cells that look like numbers, true or false are
    sent as such. An empty cell is left out; NaN, NA and null in a column of numbers or booleans are sent as null.
    An NDJSON line is sent byte for byte, even if it is malformed.

    Where [input] format is avro or protobuf, rows are written by a schema, in Confluent's framing. The cells of a CSV
    row are read by the schema's types. A time is ISO 8601 or the number that the schema's type counts, bytes are
    base64, and a field that is left out gets its default. A row that does not fit ends the command; its number and its
    field are said.

    **Example**: `failsoft publish events.csv --rate 500/s`
    """
    form = form or _SUFFIXES.get(file.suffix.lower())
    if form is None:
        raise typer.BadParameter(f"the format of {file} is unknown: write csv or ndjson", param_hint="--format")
    settings = context.settings(ctx, pipeline)
    target = topic or settings.input.topics[0]
    if settings.names.owns(target):
        raise typer.BadParameter(
            f"{target!r} is one of the pipeline's own topics, which only its workers write to: name an input topic",
            param_hint="--topic",
        )

    from failsoft.workers.operations import publish as work
    from failsoft.workers.operations import schema_rows
    from failsoft.workers.operations.event_files import Csv, Lines, Ndjson, Rows

    csv = form is Format.CSV
    fd = _open(file)
    size = os.fstat(fd).st_size if str(file) != "-" else None
    chosen = _chosen(ctx, settings, target, schema, message)
    specs = _specs(settings, chosen is None) if csv else ()
    if chosen is not None:
        specs = schema_rows.specs(chosen.root, specs, settings.envelope)
    parse: Rows = Csv(settings.envelope, key, specs) if csv else Ndjson(settings.envelope, key)
    if chosen is not None:
        parse = schema_rows.SchemaRows(parse, chosen.writer, chosen.id)
    rows = work.read_rows(work.blocks(fd), Lines(quoted=csv), parse)
    counts: list[Sent] = []
    try:
        with output.progress(f"publishing to {target}", "events", _guess(file, size, limit)) as on_progress:
            to_target = settings.model_copy(update={"input": settings.input.model_copy(update={"topics": [target]})})
            sending = work.publish(settings, target, rows, per_second, limit, on_progress, counts.append)
            sent = context.run(ctx, sending, (to_target, Use.PUBLISH))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise Interrupted(f"interrupted: {_so_far(counts)} to {target}") from None
    except Exception:
        output.note(f"stopped: {_so_far(counts)} to {target}")
        raise
    finally:
        os.close(fd)
    if parse.untimed:
        output.note(
            f"{parse.untimed} times could not be parsed and were sent unchanged: "
            "workers use the record's time for these events"
        )
    speed = sent.published / max(sent.seconds, 1e-9)
    output.result(
        {"topic": target, "published": sent.published, "partitions": sent.partitions, "seconds": sent.seconds},
        f"{sent.published:,} events published to {target} ({sent.partitions} partitions) in {sent.seconds:.1f} s, "
        f"{speed:,.0f}/s",
        as_json,
    )


def _chosen(
    ctx: typer.Context, settings: Settings, target: str, schema: str | None, message: str | None
) -> ChosenSchema | None:
    """What events are written by; None: they are JSON."""
    if settings.input.format == "json":
        for option, given in (("--schema", schema), ("--message", message)):
            if given is not None:
                problem = 'only for events in Avro or Protobuf, and [input] format is "json" in the pipeline file'
                raise typer.BadParameter(problem, param_hint=option)
        return None
    from failsoft.workers.operations import chosen_schema
    from failsoft.workers.schema_registry.packages import check_packages

    check_packages("input.format", settings.envelope.format)
    try:
        chosen = context.run(ctx, chosen_schema.choose(settings, target, schema or chosen_schema.LATEST, message))
    except OSError as e:
        raise typer.BadParameter(f"{schema}: {e.strerror}", param_hint="--schema") from None
    output.note(chosen.said)
    return chosen


def _specs(settings: Settings, needed: bool) -> tuple[Spec, ...]:
    """The features of the pipeline's models; none, with a note if they are needed, if their cards cannot be read."""
    from failsoft.models.catalog.repository import Repository
    from failsoft.schemas.config.refusal import Refused
    from failsoft.workers.serving.pipeline import load_cards

    try:
        cards = load_cards(settings, Repository(Path(settings.models.repository)))
    except Refused as e:
        if needed:
            output.note(f"the card is not known here, so each cell is sent by its look, 90210 as a number: {e}")
        return ()
    # The first card decides: the primary's, its members', then those of the fallback models.
    return tuple({spec.name: spec for card in reversed(cards.values()) for spec in card.specs}.values())


def _open(file: Path) -> int:
    if str(file) == "-":
        return os.dup(0)
    try:
        return os.open(file, os.O_RDONLY)
    except OSError as e:
        raise typer.BadParameter(f"{file}: {e.strerror}", param_hint="FILE") from None


def _guess(file: Path, size: int | None, limit: int | None) -> int | None:
    """Estimates the number of rows for the progress bar, from the lines in the first 256 KiB of the file."""
    if not size:
        return limit
    with file.open("rb") as f:
        head = f.read(1 << 18)
    guess = round(size * head.count(b"\n") / len(head)) if head else None
    return min(guess, limit) if guess and limit else guess or limit


def _so_far(counts: list[Sent]) -> str:
    return f"{counts[0].published if counts else 0:,} events were published"
