"""Where a command's words go: data to stdout (a table for people, NDJSON for programs), progress to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import typer


def people(as_json: bool) -> bool:
    """Does a person read stdout?"""
    return not as_json and sys.stdout.isatty()


def rows(found: Iterable[Mapping[str, Any]], columns: Sequence[str], as_json: bool, title: str | None = None) -> None:
    """A table of the ``columns`` for people; every key of every row for programs."""
    if not people(as_json):
        for row in found:
            line(_json(row))
        sys.stdout.flush()
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*[c.replace("_", " ") for c in columns], title=title, title_justify="left")
    for row in found:
        table.add_row(*[Text(cell(row.get(c))) for c in columns])
    Console().print(table)


def cell(value: Any) -> str:
    """A value in a table."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case list() | tuple():
            return ", ".join(map(cell, value))
    return str(value)


def result(data: Mapping[str, Any], text: str, as_json: bool) -> None:
    """What a command did: a sentence for people, an object for programs."""
    if people(as_json):
        typer.echo(text)
    else:
        line(_json(data))
        sys.stdout.flush()


def line(raw: bytes) -> None:
    """One line of data, as bytes; whoever writes many flushes when it is time."""
    sys.stdout.buffer.write(raw)
    sys.stdout.buffer.write(b"\n")


def _json(value: Any) -> bytes:
    from failsoft.schemas import wire  # brings numpy along, which a command's --help need not wait for

    return wire.dumps(value)


def note(text: str) -> None:
    """Something to know, on stderr."""
    typer.echo(text, err=True)


def next_commands(commands: Sequence[str]) -> str:
    """The lines that end the news of something that is ready."""
    return "\n".join(["next, try:", *(f"  {command}" for command in commands)])


class Progress(Protocol):
    """Told how far long work has come."""

    def __call__(self, done: int, total: int | None = None) -> None: ...


@contextmanager
def progress(what: str, unit: str, total: int | None = None) -> Iterator[Progress]:
    """A bar on stderr with the rate, for as long as a person looks at stderr; nothing otherwise."""
    if not sys.stderr.isatty():
        yield lambda done, total=None: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} " + unit),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    ]
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, rate="")

        def on_progress(done: int, total: int | None = None) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, rate=f"{speed:,.0f}/s" if speed else "")
            if total is not None:
                bar.update(task, total=total)

        yield on_progress
