"""Shared by all commands: the global flags, the pipeline to work on, and how async work is run."""

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
    from failsoft.topics.rights import Use
    from failsoft.workers.settings import Settings

T = TypeVar("T")

Pipeline = Annotated[
    Path | None,
    typer.Option(
        "--pipeline",
        metavar="PATH",
        help="The pipeline file or its folder. Default: FAILSOFT_PIPELINE, then ./pipeline.toml.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line, also on a terminal.")]


@dataclass(slots=True)
class Flags:
    """The global flags, written before the command.

    Attributes:
        pipeline: the pipeline file or its folder.
        debug: show tracebacks of expected errors, and the Kafka client's log.
    """

    pipeline: Path | None = None
    debug: bool = False


def settings(ctx: typer.Context, flag: Path | None, overrides: dict[str, Any] | None = None) -> Settings:
    """Loads the pipeline that the command works on. Raises Refused."""
    from failsoft.workers import settings as files

    return files.load(flag or ctx.obj.pipeline, os.environ, overrides)


def run(ctx: typer.Context, work: Coroutine[Any, Any, T], needs: tuple[Settings, Use] | None = None) -> T:
    """Runs a command's async work. Hides the Kafka client's log unless ``--debug`` is set: errors are raised anyway.

    ``needs``: the pipeline and the rights that the work needs. With it, an error that a missing right may have caused
    is raised as NotAuthorised, which names each right that is missing.
    """
    if not ctx.obj.debug:
        for name in ("aiokafka", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        return asyncio.run(work)
    except Exception as error:
        if needs is None:
            raise
        from failsoft.workers.kafka import access

        refusal = asyncio.run(access.explain(*needs, error))
        if refusal is None:
            raise
        raise refusal from error
