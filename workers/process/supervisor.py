"""Several worker processes on one machine: started, restarted when they crash, stopped together, never orphaned."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import Sequence
from typing import Any

import structlog

from failsoft.models.runtime.parent_death import ender
from failsoft.workers.process import restart_policy

log = structlog.get_logger("failsoft.supervisor")

DRAIN = 45.0
"""Seconds that workers have to end. A transaction may take 20 and a lane's drain 25; after that only SIGKILL helps."""


def command(arguments: Sequence[str]) -> list[str]:
    """This very program, run again with ``arguments``."""
    return [sys.executable, "-m", "failsoft.workers.cli", *arguments]


def run(commands: Sequence[Sequence[str]], drain: float = DRAIN) -> int:
    """Run all of them until SIGTERM (0), SIGINT (130), a mistake (its code), or until each was asked to end (0)."""
    return asyncio.run(Supervisor(commands, drain).run())


class Supervisor:
    """One task a process; ``drain`` is in seconds."""

    def __init__(self, commands: Sequence[Sequence[str]], drain: float = DRAIN) -> None:
        self._commands = commands
        self._drain = drain
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stop = asyncio.Event()
        self._code = 0
        self._signal = signal.SIGTERM

    async def run(self) -> int:
        """Until the end; see ``run`` above."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._end, 0, signal.SIGTERM)
        loop.add_signal_handler(signal.SIGINT, self._end, 130, signal.SIGINT)
        keepers = [loop.create_task(self._keep(i, command)) for i, command in enumerate(self._commands)]
        stopped = loop.create_task(self._stop.wait())
        everything = asyncio.gather(*keepers)
        both: set[asyncio.Future[Any]] = {stopped, everything}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not self._stop.is_set():
            await everything  # each was asked to end, or keeping one went wrong: then this raises
            return 0
        _, late = await asyncio.wait(keepers, timeout=self._drain)
        if late:
            log.error("workers did not end in time and are killed", workers=len(late), seconds=self._drain)
            for process in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            self._code = self._code or 1
        await everything
        return self._code

    def _end(self, code: int, number: signal.Signals = signal.SIGTERM) -> None:
        """Pass the signal on, once; the processes have sessions of their own, so a terminal's Ctrl-C is ours alone."""
        if self._stop.is_set():
            return
        self._code, self._signal = code, number
        self._stop.set()
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def _keep(self, index: int, command: Sequence[str]) -> None:
        loop = asyncio.get_running_loop()
        crashes = 0
        while not self._stop.is_set():
            started = loop.time()
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                # SIGTERM and not SIGKILL: an orphan drains as well as any worker.
                preexec_fn=ender(os.getpid(), signal.SIGTERM),
            )
            self._running[index] = process
            if self._stop.is_set():
                process.send_signal(self._signal)  # the order to end came while this one was being started
            code = await process.wait()
            del self._running[index]
            if self._stop.is_set():
                return
            match restart_policy.decide(code, loop.time() - started, crashes, random.random()):
                case restart_policy.Ended():
                    log.info("a worker was asked to end", worker=index, code=code)
                    return
                case restart_policy.StopAll(code):
                    log.error("a mistake that no restart mends: all workers stop", worker=index, code=code)
                    self._end(code)
                    return
                case restart_policy.Restart(wait, crashes):
                    log.error("a worker crashed", worker=index, code=code, restart_in=round(wait, 2), crashes=crashes)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._stop.wait(), wait)
