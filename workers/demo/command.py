"""``failsoft demo``: the whole story on one machine."""

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
    "failsoft kafka                      # a Kafka to keep",
    "failsoft init my-pipeline           # a pipeline of your own, with your model",
    "failsoft --help",
)


def register(root: typer.Typer) -> None:
    """Add the command to the command line."""
    root.command("demo")(demo)


def demo(
    ctx: typer.Context,
    fast: Annotated[bool, typer.Option("--fast", help="The same facts with less waiting: about 50 seconds.")] = False,
    rate: Annotated[
        float | None, typer.Option(min=20, max=5000, help="Applications a second.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Which applications are spoiled.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """See a model fail and recover, and a bad version go again, in about 90 seconds; the counts must add up.

    A real Kafka and two workers; needs nothing but this program. The first run downloads Kafka (44 MB). Nothing is left
    behind. Exits 0 only if the topics, read back at the end, hold what was promised.

    **Example**: `failsoft demo`
    """
    from rich.console import Console

    from failsoft.workers.demo.progress import on
    from failsoft.workers.demo.scenario import FAST, FULL

    script = FAST if fast else FULL
    script = replace(script, rate=rate or script.rate, seed=script.seed if seed is None else seed)
    console = Console(stderr=True)
    found = _play(ctx, script, on(console), console)
    _sum_up(found, console, as_json)
    wrong = [str(each) for each in found if not each.holds]
    if wrong:
        raise CommandFailed("it does not add up:\n" + "\n".join(f"  {line}" for line in wrong))
    output.note("It adds up.\n\n" + output.next_commands(NEXT))


def _play(ctx: typer.Context, script: Script, narrator: Narrator, console: Console) -> list[Sum]:
    from failsoft.topics.embedded import jars
    from failsoft.topics.embedded.broker import Embedded, java_runtime
    from failsoft.workers.demo.environment import EnvironmentFailed
    from failsoft.workers.demo.run import ScenarioFailed
    from failsoft.workers.demo.scenario import run_scenario

    java_runtime()  # said before anything starts
    narrator.say(
        "failsoft scores Kafka events with a model, and keeps answering, honestly, while the model fails. "
        "This is the whole story, with nothing simulated but the model's faults."
    )
    # What ends a process ends the demo as Ctrl-C does: through every `finally`, so nothing is left behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    download = "" if jars.cached() else " (the first time: 44 MB to download)"
    narrator.say(f"A real Apache Kafka starts on this machine{download} …")

    async def play() -> list[Sum]:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        with narrator:
            return await run_scenario(script, kafka.bootstrap, folder, narrator)

    with Embedded() as kafka:
        folder = kafka.data / "demo"  # it goes with Kafka's data, even after `kill -9`
        folder.mkdir()
        narrator.say(f"Kafka answers at {kafka.bootstrap}.")
        try:
            return context.run(ctx, play())
        except (ScenarioFailed, EnvironmentFailed) as e:
            raise CommandFailed(str(e)) from e


def _sum_up(found: list[Sum], console: Console, as_json: bool) -> None:
    """The sums: a table for people, on stdout; for programs, an object each there, and lines on stderr."""
    columns = ["holds", "sum", "means"]
    if output.people(as_json):
        rows = [{"holds": "✓" if s.holds else "✗", "sum": str(s), "means": s.means} for s in found]
        output.rows(rows, columns, as_json)
        return
    for s in found:
        output.note(f"  {'ok' if s.holds else 'WRONG'}: {s} ({s.means})")
    output.rows(
        [{"name": s.name, "total": s.total, "parts": s.parts, "holds": s.holds, "means": s.means} for s in found],
        columns,
        as_json,
    )
