"""The output of commands: data to stdout (a table on a terminal, else NDJSON), notes and progress to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import typer


def people(as_json: bool) -> bool:
    """Is stdout a terminal, and ``--json`` not set?"""
    return not as_json and sys.stdout.isatty()


def rows(items: Iterable[Mapping[str, Any]], columns: Sequence[str], as_json: bool, title: str | None = None) -> None:
    """Prints rows: a table of ``columns`` on a terminal, else NDJSON with every key of every row.

    A long word of a table is folded and never cut: people copy checksums and ids from it.
    """
    if not people(as_json):
        for row in items:
            line(_json(row))
        sys.stdout.flush()
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    headers = [Column(c.replace("_", " "), overflow="fold") for c in columns]
    table = Table(*headers, title=title, title_justify="left")
    for row in items:
        table.add_row(*[Text(cell(row.get(c))) for c in columns])
    Console().print(table)


def cell(value: Any) -> str:
    """The text of a value in a table."""
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
    """Prints what a command did: ``text`` on a terminal, else ``data`` as JSON."""
    if people(as_json):
        typer.echo(text)
    else:
        line(_json(data))
        sys.stdout.flush()


def line(raw: bytes) -> None:
    """Writes one line of data to stdout without a flush; the caller flushes."""
    sys.stdout.buffer.write(raw)
    sys.stdout.buffer.write(b"\n")


def _json(value: Any) -> bytes:
    from failsoft.schemas import wire  # imports numpy, which --help must not wait for

    return wire.dumps(value)


def note(text: str) -> None:
    """Prints a message to stderr."""
    typer.echo(text, err=True)


def next_commands(commands: Sequence[str]) -> str:
    """The text that suggests commands to run next."""
    return "\n".join(["next, try:", *(f"  {command}" for command in commands)])


class Progress(Protocol):
    """Called with the number of units done, and the total if it is known."""

    def __call__(self, done: int, total: int | None = None) -> None: ...


@contextmanager
def progress(label: str, unit: str, total: int | None = None) -> Iterator[Progress]:
    """Shows a progress bar with the rate on stderr if it is a terminal; else nothing."""
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
        task = bar.add_task(label, total=total, rate="")

        def on_progress(done: int, total: int | None = None) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, rate=f"{speed:,.0f}/s" if speed else "")
            if total is not None:
                bar.update(task, total=total)

        yield on_progress
