"""``failsoft offsets``: where lanes stand against what was answered; repairs, rewinds and skips offsets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from failsoft.workers.commands import context, output
from failsoft.workers.commands.breakers import default_who, now_ms
from failsoft.workers.commands.context import Json, Pipeline
from failsoft.workers.commands.error_codes import CommandFailed

if TYPE_CHECKING:
    from failsoft.workers.operations.offset_view import OffsetMove, OffsetRow
    from failsoft.workers.operations.offsets import OffsetDesk

app = typer.Typer(no_args_is_help=True)

Topics = Annotated[
    list[str] | None,
    typer.Option("--topic", metavar="T[:P]", help="A topic, or one partition of it; may be repeated."),
]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason; it stands in the history.")]
Who = Annotated[
    str | None,
    typer.Option("--who", metavar="NAME", help="The name of the operator. Default: USER@HOST.", show_default=False),
]


def register(root: typer.Typer) -> None:
    """Adds the group to the command line."""
    root.add_typer(app, name="offsets")


@app.callback()
def offsets() -> None:
    """Show where lanes stand against what was answered; settle offsets that expired, were reset or deleted.

    **Example**: `failsoft offsets show`
    """


@app.command()
def show(ctx: typer.Context, pipeline: Pipeline = None, as_json: Json = False) -> None:
    """Print each partition that workers read: committed offset, what was answered, the log's bounds, and its state.

    A lane stops at a partition that is `missing` (no committed offset, although events were answered), `behind` (an
    offset before what was answered), `deleted` (records that were deleted unread), `beyond_the_end` or `unreadable`.
    The commands that settle it are printed. Exit code 1 if there is such a partition.

    **Example**: `failsoft offsets show --json | jq 'select(.why != "")'`
    """
    from failsoft.topics.rights import Use
    from failsoft.workers.operations import offset_view
    from failsoft.workers.operations import offsets as desks

    settings = context.settings(ctx, pipeline)

    async def look() -> list[OffsetRow]:
        async with desks.desk(settings, Use.OFFSETS) as desk:
            return await desk.look()

    rows = context.run(ctx, look(), (settings, Use.OFFSETS))
    columns = ["topic", "partition", "state", "committed", "answered", "first", "end", "lag"]
    output.rows(offset_view.listed(rows), columns, as_json)
    wrong = [row for row in rows if row.is_wrong]
    for row in wrong:
        output.note(f"{row.place}: {row.why}; {row.mend}" if row.mend else f"{row.place}: {row.why}")
    if wrong:
        some = sum(row.state in ("missing", "behind") for row in wrong) > 1
        every = "; failsoft offsets repair --all settles all that are missing or behind" if some else ""
        raise CommandFailed(f"{len(wrong)} of {len(rows)} partitions are in trouble; their lanes are stopped{every}")


@app.command()
def repair(
    ctx: typer.Context,
    pipeline: Pipeline = None,
    topic: Topics = None,
    every: Annotated[bool, typer.Option("--all", help="Every partition that can be repaired.")] = False,
    why: Why = "",
    who: Who = None,
    as_json: Json = False,
) -> None:
    """Move lost or reset offsets to the position after what was answered: nothing is answered twice, nothing is lost.

    Works while workers run: a stopped lane goes on within 15 s.

    **Example**: `failsoft offsets repair --topic car-loans.events:3`
    """
    from failsoft.workers.operations import offset_view

    if bool(topic) is every:
        raise typer.BadParameter("name partitions with --topic, or all with --all", param_hint="--topic")

    async def choose(desk: OffsetDesk, rows: Sequence[OffsetRow]) -> list[OffsetMove]:
        chosen = [row for row in rows if row.state in ("missing", "behind")] if every else rows
        return [offset_view.repaired(row) for row in chosen]

    _order(ctx, pipeline, topic, choose, "repair", why, who, as_json, "nothing to repair")


@app.command()
def rewind(
    ctx: typer.Context,
    to: Annotated[
        str, typer.Option("--to", metavar="WHEN", help="An offset, a time (2026-01-31T12:00:00Z), or `earliest`.")
    ],
    pipeline: Pipeline = None,
    topic: Topics = None,
    again: Annotated[
        bool, typer.Option("--again", help="Yes, answer these events again: their answers are written twice.")
    ] = False,
    why: Why = "",
    who: Who = None,
    as_json: Json = False,
) -> None:
    """Answer events again on purpose, from an offset or a time on. Default: in all input topics.

    The answers have the rewind's id in the header `failsoft-rewind` and in the field `rewind`. Stop the workers first,
    unless the lane is stopped.

    **Example**: `failsoft offsets rewind --to 2026-01-31T12:00:00Z --again --why "wrong exchange rates, ticket 4711"`
    """
    from failsoft.workers.operations import offset_view
    from failsoft.workers.operations import offsets as desks

    if not again:
        raise typer.BadParameter(
            "a rewind answers events a second time; say --again if you want that", param_hint="--again"
        )
    where = _when(to)
    id = desks.new_id()

    async def choose(desk: OffsetDesk, rows: Sequence[OffsetRow]) -> list[OffsetMove]:
        kind, at = where
        offsets = [int(at)] * len(rows) if kind == "offset" else await desk.offsets_of(rows, at)
        moves = [offset_view.rewound(row, to, id) for row, to in zip(rows, offsets, strict=True)]
        found = [move for move in moves if move is not None]
        await desk.wait_until_unread([move.row for move in found])
        return found

    named = topic or list(context.settings(ctx, pipeline).input.topics)
    _order(
        ctx, pipeline, named, choose, f"rewind {id}", why, who, as_json, f"no partition is read beyond {to}", rewind=id
    )


@app.command()
def skip(
    ctx: typer.Context,
    pipeline: Pipeline = None,
    topic: Topics = None,
    to: Annotated[
        int | None, typer.Option("--to", metavar="OFFSET", min=0, help="Where to go on.", show_default=False)
    ] = None,
    why: Why = "",
    who: Who = None,
    as_json: Json = False,
) -> None:
    """Go on after records that were deleted unread, or after a batch that cannot be read. They are lost.

    The range is written to the alerts topic as `lost`, by its offsets. Works while workers run: the stopped lane goes
    on within 15 s.

    **Example**: `failsoft offsets skip --topic car-loans.events:3`
    """
    from failsoft.workers.operations import offset_view

    if not topic:
        raise typer.BadParameter("name the partition: T:P", param_hint="--topic")

    async def choose(desk: OffsetDesk, rows: Sequence[OffsetRow]) -> list[OffsetMove]:
        # A topic without a partition means those of its partitions that are in trouble.
        wrong = [row for row in rows if row.place in topic or row.is_wrong]
        moves = [offset_view.skipped(row, to) for row in wrong]
        await desk.wait_until_unread([move.row for move in moves])
        return moves

    _order(ctx, pipeline, topic, choose, "skip", why, who, as_json, "nothing to skip")


@app.command("history")
def history_(ctx: typer.Context, pipeline: Pipeline = None, as_json: Json = False) -> None:
    """Print the repairs, rewinds and skips that the alerts topic still has: what, where, who and why.

    **Example**: `failsoft offsets history`
    """
    from failsoft.topics.rights import Use
    from failsoft.workers.operations import offset_view
    from failsoft.workers.operations import offsets as desks

    settings = context.settings(ctx, pipeline)
    rows = offset_view.history(context.run(ctx, desks.told(settings), (settings, Use.OFFSETS)))
    columns = ["at", "partition", "what", "first_offset", "end_offset", "who", "why"]
    output.rows(rows, columns, as_json)
    if not rows:
        output.note(f"no orders in {settings.names.alerts}")


Choose = Callable[..., Any]


def _order(
    ctx: typer.Context,
    pipeline: Path | None,
    topics: list[str] | None,
    choose: Choose,
    order: str,
    why: str,
    who: str | None,
    as_json: bool,
    nothing: str,
    **about: str,
) -> None:
    """Looks at the partitions, asks ``choose`` for the moves, makes them in one transaction, and says what was done."""
    from failsoft.topics.rights import Use
    from failsoft.workers.operations import offset_view
    from failsoft.workers.operations import offsets as desks

    settings = context.settings(ctx, pipeline)
    by = default_who() if who is None else who

    async def work() -> list[OffsetMove]:
        async with desks.desk(settings, Use.OFFSET_ORDERS) as desk:
            named = offset_view.places(topics, desk.partitions) if topics else None
            rows = [r for r in await desk.look() if named is None or (r.topic, r.partition) in named]
            moves: list[OffsetMove] = await choose(desk, rows)
            if moves:
                await desk.commit(moves, [move.alert(order, by, why, now_ms()) for move in moves])
            return moves

    try:
        moves = context.run(ctx, work(), (settings, Use.OFFSET_ORDERS))
    except offset_view.OrderRefused as e:
        raise CommandFailed(str(e)) from None
    columns = ["topic", "partition", "from", "to", "lost", "again"]
    output.rows([{**move.described(), **about} for move in moves], columns, as_json)
    lost = sum(move.described()["lost"] for move in moves)
    again = sum(move.described()["again"] for move in moves)
    told = [f"{len(moves)} partitions moved"] if moves else [nothing]
    told += [f"{lost:,} offsets are lost: they are recorded in {settings.names.alerts}"] if lost else []
    told += [f"{again:,} offsets are answered again"] if again else []
    output.note(f"{order}: " + "; ".join(told))


def _when(text: str) -> tuple[str, str | int]:
    """An offset, a time in epoch milliseconds, or the name of a place. Raises BadParameter."""
    if text.isdecimal():
        return "offset", int(text)
    if text in ("earliest", "latest"):
        return "place", text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        problem = f"{text!r} is neither an offset nor a time (2026-01-31T12:00:00Z) nor earliest"
        raise typer.BadParameter(problem, param_hint="--to") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return "time", int(1000 * moment.timestamp())
