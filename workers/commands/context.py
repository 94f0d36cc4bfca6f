"""What every command shares: the flags before the command, and the pipeline that they and its own flags name."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from failsoft.workers.settings import Settings

T = TypeVar("T")

Pipeline = Annotated[
    Path | None,
    typer.Option(
        "--pipeline",
        metavar="PATH",
        help="The pipeline file, or its folder. Else FAILSOFT_PIPELINE, else ./pipeline.toml.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, also on a terminal.")]


@dataclass(slots=True)
class Flags:
    """What was given before the command."""

    pipeline: Path | None = None
    debug: bool = False


def settings(ctx: typer.Context, flag: Path | None, overrides: dict[str, Any] | None = None) -> Settings:
    """The pipeline that the command works on. Raises Refused."""
    from failsoft.workers import settings as files

    return files.load(flag or ctx.obj.pipeline, os.environ, overrides)


def run(ctx: typer.Context, work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work to its end. The client's own log lines are for those who debug: what is wrong is raised."""
    if not ctx.obj.debug:
        for name in ("aiokafka", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return asyncio.run(work)
