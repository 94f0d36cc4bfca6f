"""Ends a worker after a fatal error, and says which right was missing if that is the cause."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable

import structlog

from failsoft.topics.rights import Use
from failsoft.workers.kafka import access
from failsoft.workers.settings import Settings

log = structlog.get_logger("failsoft.app")

HARD_END = 5.0
"""Seconds after which a crashing worker exits even if cleanup is not done; leaving the group takes one second."""

EXPLAIN_WITHIN = 2.0
"""Seconds for asking the brokers which right is missing. With the second for leaving they stay below HARD_END."""


def die(
    leave: Callable[[], Awaitable[None]], error: BaseException, mend: Callable[[BaseException], Awaitable[str | None]]
) -> asyncio.Task[None]:
    """Leaves the group, for at most a second, and ends the process: crash-only is the recovery path.

    leave: leaves the group.
    mend: what mends an error that has its cause outside of the worker, or None.
    Returns the task, which a caller must keep.
    """
    log.critical("worker stops after a fatal error", error=f"{type(error).__name__}: {error}", exc_info=error)
    # Leaving the group awaits cancelled tasks, which may never end.
    hard = threading.Timer(HARD_END, os._exit, (1,))
    hard.daemon = True
    hard.start()

    async def end() -> None:
        try:
            if (found := await mend(error)) is not None:
                log.critical("what mends it", mend=found.splitlines())
            await leave()
        finally:
            os._exit(1)

    return asyncio.get_running_loop().create_task(end())


async def missing_rights(pipeline: Settings, error: BaseException) -> str | None:
    """The rights whose lack has caused ``error``, a line for each with the command that grants it; None for others."""
    try:
        refusal = await asyncio.wait_for(access.explain(pipeline, Use.WORKER, error), EXPLAIN_WITHIN)
    except TimeoutError:
        return None  # the error itself says what was refused
    return str(refusal) if refusal else None
