"""``failsoft demo``: shows failures and recovery on one machine, and checks the counts."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from failsoft.workers.commands import context, output
from failsoft.workers.commands.context import Json
from failsoft.workers.commands.error_codes import CommandFailed

if TYPE_CHECKING:
    from rich.console import Console

    from failsoft.workers.demo.progress import Narrator
    from failsoft.workers.demo.run import Script
    from failsoft.workers.demo.summary import Sum

NEXT = (
    "failsoft kafka                      # a Kafka that keeps running",
    "failsoft init my-pipeline           # your own pipeline, with your model",
    "failsoft --help",
)


def register(root: typer.Typer) -> None:
    """Adds the command to the command line."""
    root.command("demo")(demo)


def demo(
    ctx: typer.Context,
    fast: Annotated[bool, typer.Option("--fast", help="The same demo with less waiting: about 50 seconds.")] = False,
    rate: Annotated[
        float | None, typer.Option(min=20, max=5000, help="Applications a second.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the choice of spoiled applications.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Watch a model fail and recover, and a bad version being rolled back, in about 90 seconds.

    Runs a real Kafka and two workers; needs nothing else. The first run downloads Kafka (44 MB). All files are deleted
    at the end. The demo then reads the topics back and counts; the exit code is 0 only if the counts add up.

    **Example**: `failsoft demo`
    """
    from rich.console import Console

    from failsoft.workers.demo.progress import on
    from failsoft.workers.demo.scenario import FAST, FULL

    script = FAST if fast else FULL
    script = replace(script, rate=rate or script.rate, seed=script.seed if seed is None else seed)
    console = Console(stderr=True)
    sums = _play(ctx, script, on(console), console)
    _sum_up(sums, console, as_json)
    wrong = [str(each) for each in sums if not each.holds]
    if wrong:
        raise CommandFailed("the counts do not add up:\n" + "\n".join(f"  {line}" for line in wrong))
    output.note("It adds up.\n\n" + output.next_commands(NEXT))


def _play(ctx: typer.Context, script: Script, narrator: Narrator, console: Console) -> list[Sum]:
    from failsoft.topics.embedded import jars
    from failsoft.topics.embedded.broker import Embedded, java_runtime
    from failsoft.workers.demo.environment import EnvironmentFailed
    from failsoft.workers.demo.run import ScenarioFailed
    from failsoft.workers.demo.scenario import run_scenario

    java_runtime()  # raises now if there is no Java runtime, before anything starts
    narrator.say(
        "failsoft scores Kafka events with a model, and keeps answering, honestly, while the model fails. "
        "This demo shows how. Kafka, the workers and the models are real; only the model's faults are simulated."
    )
    # These signals end the demo as Ctrl-C does: every `finally` runs, so no process or file is left behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    download = "" if jars.cached() else " (the first run downloads 44 MB)"
    narrator.say(f"A real Apache Kafka starts on this machine{download} …")

    async def play() -> list[Sum]:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        with narrator:
            return await run_scenario(script, kafka.bootstrap, folder, narrator)

    with Embedded() as kafka:
        folder = kafka.data / "demo"  # deleted with Kafka's data, even after `kill -9`
        folder.mkdir()
        narrator.say(f"Kafka answers at {kafka.bootstrap}.")
        try:
            return context.run(ctx, play())
        except (ScenarioFailed, EnvironmentFailed) as e:
            raise CommandFailed(str(e)) from e


def _sum_up(sums: list[Sum], console: Console, as_json: bool) -> None:
    """Prints the sums: on a terminal a table to stdout; else JSON objects to stdout and lines to stderr."""
    columns = ["holds", "sum", "means"]
    if output.people(as_json):
        rows = [{"holds": "✓" if s.holds else "✗", "sum": str(s), "means": s.means} for s in sums]
        output.rows(rows, columns, as_json)
        return
    for s in sums:
        output.note(f"  {'ok' if s.holds else 'WRONG'}: {s} ({s.means})")
    output.rows(
        [{"name": s.name, "total": s.total, "parts": s.parts, "holds": s.holds, "means": s.means} for s in sums],
        columns,
        as_json,
    )
