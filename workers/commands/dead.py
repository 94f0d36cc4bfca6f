"""``failsoft dead``: dead letters listed, shown and replayed."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from failsoft.workers.commands import context, output
from failsoft.workers.commands.context import Json, Pipeline
from failsoft.workers.commands.error_codes import CommandFailed, Interrupted
from failsoft.workers.commands.publish import rate

if TYPE_CHECKING:
    from failsoft.workers.operations.dead_letters import DeadLetterFilter
    from failsoft.workers.operations.replay import ReplayProgress

app = typer.Typer(no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the group to the command line."""
    root.add_typer(app, name="dead")


@app.callback()
def dead() -> None:
    """List, show and replay dead letters.

    **Example**: `failsoft dead list`
    """


@app.command("list")
def list_(ctx: typer.Context, pipeline: Pipeline = None, as_json: Json = False) -> None:
    """Count the dead letters by kind, model and version: how many, how many were replayed, and when they died.

    The newest of each is named as `failsoft dead show` takes it: partition:offset of the dead topic.

    **Example**: `failsoft dead list`
    """
    from failsoft.workers.operations import dead_letters
    from failsoft.workers.operations import replay as dead

    settings = context.settings(ctx, pipeline)
    with output.progress("reading dead letters", "read") as bar:
        found = context.run(ctx, dead.groups(settings, lambda counts: bar(counts.seen, counts.total)))
    columns = ["kind", "model", "version", "count", "replayed", "first", "last", "newest"]
    output.rows(dead_letters.listed(found), columns, as_json)
    if not found:
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
    """Show a dead letter in full: why it died, where it came from, its headers, key and value.

    An event that was replayed and died again is shown each time.

    **Example**: `failsoft dead show 0:17`
    """
    from failsoft.workers.operations import dead_letters
    from failsoft.workers.operations import replay as dead
    from failsoft.workers.operations.dead_letters import DeadLetterFilter

    settings = context.settings(ctx, pipeline)
    found = context.run(ctx, dead.find(settings, dead_letters.place(which) or DeadLetterFilter(event=which)))
    if not found:
        raise CommandFailed(f"no dead letter {which} in {settings.names.dead}; see: failsoft dead list")
    described = [dead_letters.described(letter, settings.envelope, replayed) for letter, replayed in found]
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
    kind: Annotated[list[str] | None, typer.Option(help="Only of this failure kind; may be repeated.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only of this model; may be repeated.")] = None,
    version: Annotated[list[int] | None, typer.Option(help="Only of this version; may be repeated.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Died then or later: an ISO time, or how long ago (2h).")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Died before then.")] = None,
    event: Annotated[str | None, typer.Option(metavar="ID", help="Only this event, by id or origin.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Replay at most so many.", show_default=False)] = None,
    per_second: Annotated[
        float | None, typer.Option("--rate", metavar="N/s", parser=rate, help="Replay so many a second.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    replay_id: Annotated[
        str | None, typer.Option(help="Goes into each record's failsoft-replay-id; else made up.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Send dead letters to the pipeline's replay topic, where workers try them as new.

    Each is replayed once, however often the command is repeated, interrupted or killed; one that dies again may be
    replayed again.

    **Example**: `failsoft dead replay --kind timeout --since 2h --dry-run`
    """
    from failsoft.workers.operations import replay as dead

    settings = context.settings(ctx, pipeline)
    chosen = _filter(kind, model, version, since, until, event)
    replay_id = replay_id or dead.new_id()
    # Bytes: whoever reads the header takes no more than 300, and what it does not take is a dead letter again.
    if not replay_id.isprintable() or not 0 < len(replay_id.encode()) <= 100:
        raise typer.BadParameter("use 1 to 100 printable characters, at most 100 bytes", param_hint="--replay-id")
    counts = dead.ReplayProgress()
    how = dead.ReplayOptions(replay_id, limit, per_second, dry_run)
    try:
        with output.progress("reading dead letters", "read") as bar:
            context.run(ctx, dead.replay(settings, chosen, how, counts, lambda c: bar(c.seen, c.total)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise Interrupted(f"interrupted: {_sum(counts, dry_run)}; the same command goes on from here") from None
    except Exception:
        output.note(f"stopped: {_sum(counts, dry_run)}; the same command goes on from here")
        raise
    _report(counts, replay_id, dry_run, as_json)
    if counts.unreadable:
        raise CommandFailed(
            f"{counts.unreadable} dead letters cannot be replayed: no worker wrote their headers, so where they came "
            "from is unknown; they are still there"
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
            told = f"{kind!r} is no failure kind{near(kind, Kind)}; there are: {', '.join(Kind)}"
            raise typer.BadParameter(told, param_hint="--kind")
    return DeadLetterFilter(
        frozenset(kinds or ()),
        frozenset(models or ()),
        frozenset(versions or ()),
        _when(since, "--since"),
        _when(until, "--until"),
        event,
    )


def _when(text: str | None, option: str) -> int | None:
    """Epoch ms."""
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
        told = f"{text!r} is neither a time (2026-01-31T12:00:00Z) nor how long ago (90s, 2h, 7d)"
        raise typer.BadParameter(told, param_hint=option) from None
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
    output.result(data, _sum(counts, dry_run) + ("" if dry_run else f", as {replay_id}"), as_json)


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
            console.print(label)
            console.print(JSON.from_data(value["json"], ensure_ascii=False), soft_wrap=True)
        elif isinstance(value, dict) and name != "origin":
            console.print(label, Text(str(value.get("text", value.get("hex", "")))), soft_wrap=True)
        elif isinstance(value, dict):
            console.print(label, Text("-".join(map(str, value.values()))), soft_wrap=True)
        else:
            console.print(label, Text("null" if value is None else str(value)), soft_wrap=True)
