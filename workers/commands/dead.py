"""``failsoft dead``: lists, shows and replays dead letters."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from failsoft.topics.rights import Use
from failsoft.workers.commands import context, output
from failsoft.workers.commands.context import Json, Pipeline
from failsoft.workers.commands.error_codes import CommandFailed, Interrupted
from failsoft.workers.commands.publish import rate

if TYPE_CHECKING:
    from failsoft.workers.operations.dead_letters import DeadLetterFilter
    from failsoft.workers.operations.replay import ReplayProgress

app = typer.Typer(no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Adds the group to the command line."""
    root.add_typer(app, name="dead")


@app.callback()
def dead() -> None:
    """List, show and replay dead letters.

    **Example**: `failsoft dead list`
    """


@app.command("list")
def list_(ctx: typer.Context, pipeline: Pipeline = None, as_json: Json = False) -> None:
    """Count dead letters by kind, model and version: total, replayed, and times of the first and last death.

    `newest` is partition:offset of the last one in the dead topic. Pass it to `failsoft dead show`.

    **Example**: `failsoft dead list`
    """
    from failsoft.workers.operations import dead_letters
    from failsoft.workers.operations import replay as dead

    settings = context.settings(ctx, pipeline)
    with output.progress("reading dead letters", "read") as bar:
        groups = context.run(
            ctx, dead.groups(settings, lambda counts: bar(counts.seen, counts.total)), (settings, Use.DEAD)
        )
    columns = ["kind", "model", "version", "count", "replayed", "first", "last", "newest"]
    output.rows(dead_letters.listed(groups), columns, as_json)
    if not groups:
        output.note(f"no dead letters in {settings.names.dead}")


@app.command()
def show(
    ctx: typer.Context,
    which: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="An event's id, its origin (topic-partition-offset), or partition:offset of the dead topic.",
        ),
    ],
    pipeline: Pipeline = None,
    as_json: Json = False,
) -> None:
    """Show a dead letter in full: failure, origin, headers, key and value.

    An event that died more than once is shown once for each death. A value in Avro or Protobuf is decoded by its
    schema, from the pipeline's topic of schemas or from the registry; where that fails, it is shown in hexadecimal, and
    why.

    **Example**: `failsoft dead show 0:17`
    """
    from failsoft.workers.operations import dead_letters
    from failsoft.workers.operations import replay as dead
    from failsoft.workers.operations.dead_letters import DeadLetterFilter
    from failsoft.workers.schema_registry.packages import check_packages

    settings = context.settings(ctx, pipeline)
    check_packages("input.format", settings.envelope.format)
    described = context.run(
        ctx, dead.shown(settings, dead_letters.place(which) or DeadLetterFilter(event=which)), (settings, Use.DEAD)
    )
    if not described:
        raise CommandFailed(f"no dead letter {which} in {settings.names.dead}; see: failsoft dead list")
    if not output.people(as_json):
        output.rows(described, [], as_json)
        return
    from rich.console import Console

    console = Console()
    for n, each in enumerate(described):
        if n:
            console.rule()
        _print(console, each)


@app.command("replay")
def replay_(
    ctx: typer.Context,
    pipeline: Pipeline = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only this failure kind; may be repeated.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only this model; may be repeated.")] = None,
    version: Annotated[list[int] | None, typer.Option(help="Only this version; may be repeated.")] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Only deaths at or after this time: an ISO time, or an age such as 2h."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only deaths before this time: an ISO time, or an age.")
    ] = None,
    event: Annotated[str | None, typer.Option(metavar="ID", help="Only this event, by its id or origin.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of dead letters to replay.", show_default=False)
    ] = None,
    per_second: Annotated[
        float | None, typer.Option("--rate", metavar="N/s", parser=rate, help="Maximum dead letters a second.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be replayed.")] = False,
    replay_id: Annotated[
        str | None,
        typer.Option(
            help="Written to the header failsoft-replay-id of each record. Default: a new id.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Send dead letters to the replay topic, where workers process them again.

    Each dead letter is replayed only once, even if the command is repeated, interrupted or killed, or if another tool
    has sent the letter back to an input topic. An event that dies again is a new dead letter and can be replayed again.

    **Example**: `failsoft dead replay --kind timeout --since 2h --dry-run`
    """
    from failsoft.workers.operations import replay as dead
    from failsoft.workers.schema_registry.packages import check_packages

    settings = context.settings(ctx, pipeline)
    if event is not None:
        check_packages("input.format", settings.envelope.format)
    chosen = _filter(kind, model, version, since, until, event)
    replay_id = replay_id or dead.new_id()
    # The limit is in bytes: a reader of the header accepts at most 300, and a refused header makes a dead letter again.
    if not replay_id.isprintable() or not 0 < len(replay_id.encode()) <= 100:
        raise typer.BadParameter("use 1 to 100 printable characters, at most 100 bytes", param_hint="--replay-id")
    counts = dead.ReplayProgress()
    options = dead.ReplayOptions(replay_id, limit, per_second, dry_run)
    try:
        with output.progress("reading dead letters", "read") as bar:
            work = dead.replay(settings, chosen, options, counts, lambda c: bar(c.seen, c.total))
            context.run(ctx, work, (settings, Use.REPLAY))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise Interrupted(f"interrupted: {_sum(counts, dry_run)}; run the same command again to continue") from None
    except Exception:
        output.note(f"stopped: {_sum(counts, dry_run)}; run the same command again to continue")
        raise
    _report(counts, replay_id, dry_run, as_json)
    if counts.unreadable:
        raise CommandFailed(
            f"{counts.unreadable} dead letters cannot be replayed: their headers cannot be parsed, so their origin is "
            "unknown; they stay in the dead topic"
        )


def _filter(
    kinds: list[str] | None,
    models: list[str] | None,
    versions: list[int] | None,
    since: str | None,
    until: str | None,
    event: str | None,
) -> DeadLetterFilter:
    from failsoft.schemas.config.refusal import near
    from failsoft.schemas.failure import Kind
    from failsoft.workers.operations.dead_letters import DeadLetterFilter

    for kind in kinds or []:
        if kind not in list(Kind):
            problem = f"{kind!r} is not a failure kind{near(kind, Kind)}; there are: {', '.join(Kind)}"
            raise typer.BadParameter(problem, param_hint="--kind")
    return DeadLetterFilter(
        frozenset(kinds or ()),
        frozenset(models or ()),
        frozenset(versions or ()),
        _when(since, "--since"),
        _when(until, "--until"),
        event,
    )


def _when(text: str | None, option: str) -> int | None:
    """Parses an ISO time or an age into epoch milliseconds. Raises BadParameter for ``option``."""
    from failsoft.schemas.config.duration import seconds

    if text is None:
        return None
    try:
        return int(1000 * (time.time() - seconds(text)))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        problem = f"{text!r} is neither a time (2026-01-31T12:00:00Z) nor an age (90s, 2h, 7d)"
        raise typer.BadParameter(problem, param_hint=option) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(1000 * moment.timestamp())


def _report(counts: ReplayProgress, replay_id: str, dry_run: bool, as_json: bool) -> None:
    verb = "would_replay" if dry_run else "replayed"
    rows: list[dict[str, Any]] = [
        {"kind": kind, "matched": c.matched, "already_replayed": c.already, verb: c.replayed}
        for kind, c in sorted(counts.kinds.items(), key=lambda item: -item[1].matched)
    ]
    if output.people(as_json) and rows:
        output.rows(rows, ["kind", "matched", "already_replayed", verb], as_json)
    data = {
        "replay_id": replay_id,
        "dry_run": dry_run,
        "matched": counts.matched,
        "already_replayed": counts.already,
        verb: counts.replayed,
        "unreadable": counts.unreadable,
        "kinds": rows,
    }
    output.result(data, _sum(counts, dry_run) + ("" if dry_run else f", with replay id {replay_id}"), as_json)


def _sum(counts: ReplayProgress, dry_run: bool) -> str:
    verb = "would be replayed" if dry_run else "replayed"
    return f"{counts.matched:,} dead letters matched, {counts.already:,} replayed before, {counts.replayed:,} {verb}"


def _print(console: Any, about: dict[str, Any]) -> None:
    from rich.json import JSON
    from rich.text import Text

    for name, value in about.items():
        label = Text(f"{name.replace('_', ' '):<16}", style="bold")
        if name in ("headers", "control_headers"):
            console.print(label)
            for header in value:
                console.print(Text(f"  {header['name']}: {header.get('text', header.get('hex', ''))}"), soft_wrap=True)
        elif isinstance(value, dict) and "json" in value:
            console.print(label, Text(_schema(value)))
            console.print(JSON.from_data(value["json"], ensure_ascii=False), soft_wrap=True)
        elif isinstance(value, dict) and name != "origin":
            shown = str(value.get("text", value.get("hex", "")))
            console.print(label, Text(f"{_schema(value)} {shown}".strip()), soft_wrap=True)
        elif isinstance(value, dict):
            console.print(label, Text("-".join(map(str, value.values()))), soft_wrap=True)
        else:
            console.print(label, Text("null" if value is None else str(value)), soft_wrap=True)


def _schema(value: dict[str, Any]) -> str:
    """The schema of a value, and why it cannot be decoded by it."""
    schema = f"schema {value['schema']}" if "schema" in value else ""
    problem = f"cannot be decoded: {value['problem']}" if "problem" in value else ""
    return " ".join(filter(None, (schema, problem)))
