"""Runs one worker process from start to exit: topology check, the app, signals, and the exit code."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace

import structlog

from failsoft.topics.rights import Use
from failsoft.workers.fleet import rollouts
from failsoft.workers.kafka import access
from failsoft.workers.process import composition, permission
from failsoft.workers.schema_registry import answer_schema
from failsoft.workers.settings import Settings

log = structlog.get_logger("failsoft.process")

LINGER = 5.0
"""Seconds that a drained worker has to end its threads and tasks; then it exits anyway."""

GC_THRESHOLD = 500_000
"""Allocations between two runs of the cyclic garbage collector. A batch makes thousands of live dicts and no cycles; at
the default of 700 the collector took 9 % of the main thread."""


async def serve(pipeline: Settings, options: composition.Options, ready: Callable[[str], None] | None = None) -> int:
    """Runs a worker until SIGTERM (returns 0) or SIGINT (returns 130).

    Raises the error that prevents the start or stops the app; a fatal error of a lane ends the process (``die``).
    ready: called with the address of the HTTP server when the worker is ready.
    """
    topology = await permission.verified(pipeline)
    active, probe, schema = await asyncio.gather(
        rollouts.active(pipeline),
        composition.measured_clock(pipeline, options.worker_id),
        answer_schema.required(pipeline),
    )
    options = replace(options, answer_schema=schema)
    app = composition.build(pipeline, options, topology, active, probe)
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[int] = loop.create_future()

    def end(code: int) -> None:
        if not stop.done():
            stop.set_result(code)

    loop.add_signal_handler(signal.SIGTERM, end, 0)
    loop.add_signal_handler(signal.SIGINT, end, 130)
    starting = loop.create_task(app.start())
    await asyncio.wait({stop, starting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():  # it is still joining its group, which can take as long as a rebalance or an outage
        log.info("asked to end before joining the group")
        await app.lanes.drain()
        starting.cancel()
        return stop.result()
    await starting
    crashed = loop.create_task(app.wait_until_stopped())
    announce = loop.create_task(_announce(app, ready)) if ready else None
    await asyncio.wait({stop, crashed}, return_when=asyncio.FIRST_COMPLETED)
    if announce is not None:
        announce.cancel()
    if not stop.done():
        raise app.crash_reason or RuntimeError("the app stopped without an error and without a signal")
    log.info("draining")
    await app.stop()
    crashed.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await crashed
    log.info("drained")
    if app.runner.lost:
        # Lost threads are inside a model's native code. They must not return into an interpreter that is shutting down.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(stop.result())
    return stop.result()


def _end_for_certain(code: int) -> None:
    """Exits after ``LINGER`` seconds even if a thread or task does not end. Everything is committed by now."""
    hard = threading.Timer(LINGER, os._exit, (code,))
    hard.daemon = True
    hard.start()


async def _announce(app: composition.App, ready: Callable[[str], None]) -> None:
    while app.not_ready() is not None:
        await asyncio.sleep(0.05)
    ready(app.probes_address)


async def _named(pipeline: Settings, options: composition.Options, ready: Callable[[str], None] | None) -> int:
    """``serve``; an error for lack of a right is raised as NotAuthorised, which names the right."""
    try:
        return await serve(pipeline, options, ready)
    except Exception as error:
        refusal = await access.explain(pipeline, Use.WORKER, error)
        if refusal is None:
            raise
        raise refusal from error


def run(pipeline: Settings, options: composition.Options, ready: Callable[[str], None] | None = None) -> int:
    """Runs ``serve`` on uvloop; a stuck model thread cannot keep the process from exiting."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_named(pipeline, options, ready))
        _end_for_certain(code)
    return code
