"""The console script ``failsoft``. It registers the command groups; each group is defined in its own module."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from failsoft.workers.commands import breakers, dead, init, kafka, models, offsets, publish, tail, topics, worker
from failsoft.workers.commands.context import Flags
from failsoft.workers.commands.error_codes import INTERRUPTED, RootGroup

app = typer.Typer(
    cls=RootGroup,
    rich_markup_mode="markdown",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # typer's own tracebacks show the values of local variables
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"failsoft {version('failsoft')}")
        raise typer.Exit()


@app.callback()
def root(
    ctx: typer.Context,
    pipeline: Annotated[
        Path | None,
        typer.Option("--pipeline", metavar="PATH", help="The pipeline file, or its folder.", show_default=False),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of expected errors too.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Score Kafka events with ONNX models. While parts fail, events still get answers, marked as degraded.

    **Exit codes**: 0 done, 1 failed, 2 used wrongly, 3 the pipeline file or a card is refused, 4 Kafka cannot
    be reached, 130 interrupted.

    **Start here**: `failsoft demo`
    """
    ctx.obj = Flags(pipeline, debug)


for group in (kafka, init, topics, worker, offsets, publish, tail, dead, breakers, models):
    group.register(app)
# The demo's folder is optional: without it there is no demo command.
if find_spec("failsoft.workers.demo.command") is not None:
    importlib.import_module("failsoft.workers.demo.command").register(app)


def main() -> None:
    """The entry point of the console script."""
    try:
        app(prog_name="failsoft")
    except KeyboardInterrupt:  # Ctrl-C before a command started or after it ended
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
