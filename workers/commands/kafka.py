"""``failsoft kafka``: runs an embedded Apache Kafka in the foreground."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from failsoft.workers.commands import output
from failsoft.workers.commands.error_codes import INTERRUPTED, CommandFailed

if TYPE_CHECKING:
    from failsoft.topics.embedded.broker import Embedded

PORT = 9092
"""The port in the default ``bootstrap_servers`` of a pipeline file."""


def register(root: typer.Typer) -> None:
    """Adds the command to the command line."""
    root.command("kafka")(kafka)


def kafka(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port for clients, on loopback.")] = PORT,
    data: Annotated[
        Path | None,
        typer.Option(help="The folder for topics. Without it, topics are deleted at the end.", show_default=False),
    ] = None,
) -> None:
    """Run a real single-node Apache Kafka until Ctrl-C. It needs neither Docker nor Java.

    The first run downloads it (44 MB). Only this machine can connect. While it runs, failsoft init finds it.

    **Example**: `failsoft kafka --data ./kafka-data`
    """
    from failsoft.topics.embedded.broker import Embedded, java_runtime

    java_runtime()  # raises now if there is no Java runtime, before anything starts
    ended = threading.Event()
    codes: list[int] = []

    def end(number: int, _: object) -> None:
        codes.append(INTERRUPTED if number == signal.SIGINT else 0)
        ended.set()
        if not started:
            raise KeyboardInterrupt  # ends the start of the broker, which nobody needs any more

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
        kept = "" if data else " (temporary: deleted when Kafka stops; --data keeps it)"
        typer.echo(f"Kafka listens on {broker.bootstrap}\nits data is in {broker.data}{kept}\nits log is {broker.log}")
        typer.echo(output.next_commands(["failsoft init my-pipeline", "failsoft topics apply", "failsoft worker"]))
        sys.stdout.flush()
        with _noted(broker):
            while not ended.wait(1.0):
                if not broker.running:
                    raise CommandFailed(f"Kafka ended unexpectedly; see its log: {broker.log}")
    finally:
        output.note("stopping Kafka …")
        broker.stop()
    raise typer.Exit(codes[0])


@contextmanager
def _noted(broker: Embedded) -> Iterator[None]:
    """Lets ``failsoft init`` find the broker. Without a folder for the note, it runs all the same."""
    from failsoft.workers.identity import NoOwnFolder
    from failsoft.workers.operations import local_kafka

    with ExitStack() as stack:
        try:
            stack.enter_context(local_kafka.noted(broker))
        except (NoOwnFolder, OSError) as e:
            output.note(f"failsoft init will not find this Kafka: {e}; give it --bootstrap {broker.bootstrap}")
        yield
