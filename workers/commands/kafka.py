"""``failsoft kafka``: an embedded Apache Kafka in the foreground."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from failsoft.workers.commands import output
from failsoft.workers.commands.error_codes import INTERRUPTED, CommandFailed

PORT = 9092
"""Where the pipeline file looks unless told otherwise."""


def register(root: typer.Typer) -> None:
    """Add the command to the command line."""
    root.command("kafka")(kafka)


def kafka(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where clients connect, on loopback.")] = PORT,
    data: Annotated[
        Path | None,
        typer.Option(help="Where topics are kept. Without it they go when it stops.", show_default=False),
    ] = None,
) -> None:
    """Run a real single-node Apache Kafka here, until Ctrl-C: no Docker and no Java needed.

    The first run downloads it (44 MB). It serves this machine only.

    **Example**: `failsoft kafka --data ./kafka-data`
    """
    from failsoft.topics.embedded.broker import Embedded, java_runtime

    java_runtime()  # said before anything starts
    ended = threading.Event()
    codes: list[int] = []

    def end(number: int, _: object) -> None:
        codes.append(INTERRUPTED if number == signal.SIGINT else 0)
        ended.set()
        if not started:
            raise KeyboardInterrupt  # it is still starting: whoever gave up waiting has no use for a broker

    started = False
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    broker = Embedded(data, port)
    output.note("starting Kafka …")
    try:
        broker.start()
    except KeyboardInterrupt:
        raise typer.Exit(codes[0]) from None
    started = True
    try:
        kept = "" if data else " (temporary: it goes when Kafka stops; --data keeps it)"
        typer.echo(f"Kafka listens on {broker.bootstrap}\nits data is in {broker.data}{kept}\nits log is {broker.log}")
        typer.echo(output.next_commands(["failsoft init my-pipeline", "failsoft topics apply", "failsoft worker"]))
        sys.stdout.flush()
        while not ended.wait(1.0):
            if not broker.running:
                raise CommandFailed(f"Kafka ended by itself; its log: {broker.log}")
    finally:
        output.note("stopping Kafka …")
        broker.stop()
    raise typer.Exit(codes[0])
