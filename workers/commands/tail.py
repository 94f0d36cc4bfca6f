"""``failsoft tail``: follows a pipeline's answers."""

from __future__ import annotations

import sys
from contextlib import aclosing
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from failsoft.topics.rights import Use
from failsoft.workers.commands import context, output
from failsoft.workers.commands.context import Json, Pipeline

if TYPE_CHECKING:
    from failsoft.schemas.record import Record
    from failsoft.workers.operations.tail import TailFilter


class Start(StrEnum):
    """The position to start reading from."""

    BEGINNING = "beginning"
    END = "end"


def register(root: typer.Typer) -> None:
    """Adds the command to the command line."""
    root.command("tail")(tail)


def tail(
    ctx: typer.Context,
    pipeline: Pipeline = None,
    degraded: Annotated[bool, typer.Option("--degraded", help="Only degraded answers.")] = False,
    event: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this event; starts at the beginning.", show_default=False)
    ] = None,
    start: Annotated[
        Start | None, typer.Option("--from", help="Where to start. Default: the end.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Stop after this number of answers.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Follow the pipeline's answers until Ctrl-C.

    An event may have two answers: a provisional one, and its correction. In a pipe each answer is one line of JSON,
    exactly as in the topic; one in Avro as its JSON.

    **Example**: `failsoft tail --degraded --from beginning | jq .reason`
    """
    from failsoft.workers.operations.tail import TailFilter

    settings = context.settings(ctx, pipeline)
    start = start or (Start.BEGINNING if event else Start.END)
    chosen = TailFilter(degraded, event)
    if sys.stderr.isatty():
        output.note(f"following {settings.names.scored} from its {start}; stop with Ctrl-C")
    context.run(
        ctx, _show(settings, chosen, start is Start.BEGINNING, limit, output.people(as_json)), (settings, Use.TAIL)
    )


async def _show(settings: Any, chosen: TailFilter, from_beginning: bool, limit: int | None, people: bool) -> None:
    from failsoft.workers.operations.tail import follow, line

    if people:
        show = _table()
    async with aclosing(follow(settings, chosen, from_beginning, limit)) as batches:
        async for records in batches:
            for record in records:
                if people:
                    show(record)
                else:
                    output.line(line(record))
            sys.stdout.flush()


_WIDTHS = (24, 24, 9, 12, 14, 20, 14)


def _table() -> Any:
    """Prints the head of a table; returns a function that prints one record as a line."""
    from rich.console import Console
    from rich.text import Text

    from failsoft.workers.operations.tail import answer

    console = Console(soft_wrap=True, highlight=False)
    names = ("scored at", "event", "score", "label", "source", "model", "reason", "")
    console.print(Text(_columns(names), style="bold"))

    def show(record: Record) -> None:
        a = answer(record)
        if a is None:
            console.print(Text(f"not an answer: partition {record.partition}, offset {record.offset}", style="red"))
            return
        model = f"{a['model']}@{a['version']}" if a["version"] is not None else str(a["model"] or "")
        kind = "correction" if a["revision"] else ("" if a["final"] else "provisional")
        cells = (a["scored_at"], a["event_id"], output.cell(a["score"]), output.cell(a["label"]))
        line = _columns((*cells, a["source"], model, str(a["reason"] or ""), kind))
        console.print(Text(line, style="yellow" if a["degraded"] else ""))

    return show


def _columns(cells: tuple[str, ...]) -> str:
    return " ".join([*(c.ljust(w) for c, w in zip(cells, _WIDTHS, strict=False)), cells[-1]])
