"""Supervises several worker processes on one machine: starts them, restarts crashed ones, stops all together."""

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
from failsoft.workers.client_timeouts import ClientTimeouts
from failsoft.workers.process import restart_policy

log = structlog.get_logger("failsoft.supervisor")

DRAIN = ClientTimeouts().end
"""Seconds that workers have to end before SIGKILL, with the default timeouts."""


def command(arguments: Sequence[str]) -> list[str]:
    """The command line that runs this program again with ``arguments``.

    ``-P``: without it a ``queue.py`` in the working directory would take the place of Python's own.
    """
    return [sys.executable, "-P", "-m", "failsoft.workers.cli", *arguments]


def run(commands: Sequence[Sequence[str]], drain: float = DRAIN) -> int:
    """Runs all ``commands`` and returns the exit code.

    It ends at SIGTERM (0), at SIGINT (130), when a worker ends with a code that no restart can fix (that code), or when
    every worker was asked to end (0). A worker that has to be killed turns 0 into 1. ``drain`` is in seconds.
    """
    return asyncio.run(Supervisor(commands, drain).run())


class Supervisor:
    """Runs one task for each process. ``drain``: seconds that the processes have to end."""

    def __init__(self, commands: Sequence[Sequence[str]], drain: float = DRAIN) -> None:
        self._commands = commands
        self._drain = drain
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stop = asyncio.Event()
        self._code = 0
        self._signal = signal.SIGTERM

    async def run(self) -> int:
        """Runs until the end; the exit codes are those of the function ``run``."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._end, 0, signal.SIGTERM)
        loop.add_signal_handler(signal.SIGINT, self._end, 130, signal.SIGINT)
        tasks = [loop.create_task(self._supervise(i, command)) for i, command in enumerate(self._commands)]
        stopped = loop.create_task(self._stop.wait())
        everything = asyncio.gather(*tasks)
        both: set[asyncio.Future[Any]] = {stopped, everything}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not self._stop.is_set():
            await everything  # all workers were asked to end; raises the error of a task that failed
            return 0
        _, late = await asyncio.wait(tasks, timeout=self._drain)
        if late:
            log.error("workers did not end in time and are killed", workers=len(late), seconds=self._drain)
            for process in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            self._code = self._code or 1
        await everything
        return self._code

    def _end(self, code: int, number: signal.Signals = signal.SIGTERM) -> None:
        """Passes the signal on, once. The processes run in sessions of their own and do not get a terminal's Ctrl-C."""
        if self._stop.is_set():
            return
        self._code, self._signal = code, number
        self._stop.set()
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def _supervise(self, index: int, command: Sequence[str]) -> None:
        loop = asyncio.get_running_loop()
        crashes = 0
        while not self._stop.is_set():
            started = loop.time()
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                # If the supervisor dies, the kernel sends SIGTERM and not SIGKILL, so that the worker can drain.
                preexec_fn=ender(os.getpid(), signal.SIGTERM),
            )
            self._running[index] = process
            if self._stop.is_set():
                process.send_signal(self._signal)  # the signal to end arrived while this process was starting
            code = await process.wait()
            del self._running[index]
            if self._stop.is_set():
                return
            match restart_policy.decide(code, loop.time() - started, crashes, random.random()):
                case restart_policy.Ended():
                    log.info("a worker was asked to end", worker=index, code=code)
                    return
                case restart_policy.StopAll(code):
                    log.error("a restart cannot fix this exit code: all workers stop", worker=index, code=code)
                    self._end(code)
                    return
                case restart_policy.Restart(wait, crashes):
                    log.error("a worker crashed", worker=index, code=code, restart_in=round(wait, 2), crashes=crashes)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._stop.wait(), wait)
