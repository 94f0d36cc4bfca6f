"""Where the demo plays: a folder of its own, a pipeline file, and workers, each in a process of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from failsoft import models
from failsoft.workers import settings
from failsoft.workers.demo.fault import Switch
from failsoft.workers.settings import Settings

WORKERS = ("demo-1", "demo-2")
"""Their ids. Two are a fleet: what one finds out, the other obeys."""

PARTITIONS = 4
"""Four lanes, two a worker: enough that ordering and ownership are by partition, as in earnest."""

READY_WITHIN = 60.0
"""Seconds for a worker to load its models, get its lanes and read the fleet's breakers: five are usual, a busy machine
takes twenty."""

DRAIN_WITHIN = 40.0
"""Seconds to end after SIGTERM. A commit may take 20, a drain 25."""

TAIL = 3
"""Lines of the worker's log in an error: the last one is a JSON object with the traceback in it."""

PIPELINE = """\
# The demo's pipeline. `failsoft init DIR` makes one that you can keep.
name = "car-loans"
model = "repayment"

[kafka]
bootstrap_servers = "{bootstrap}"

[input]
topics = ["car-loans.events"]
id = "event_id"
time = "occurred_at"
features = "features"
partitions = {partitions}

[retry]
delays = [{delays}]

[models]
repository = '{repository}'
"""


class EnvironmentFailed(Exception):
    """A worker did not do as it should; says what its log says."""


class Worker:
    """A running worker process."""

    def __init__(self, id: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.id = id
        self._process = process
        self._log = log
        self.address = ""

    async def ready(self) -> None:
        """Returns once it has its lanes and knows the fleet's breakers. Raises EnvironmentFailed."""
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), READY_WITHIN)
        except TimeoutError:
            raise EnvironmentFailed(self._that(f"was not ready after {READY_WITHIN:g} s")) from None
        if not line:
            raise EnvironmentFailed(self._that("ended before it was ready"))
        self.address = line.decode().strip()

    def check(self) -> None:
        """Raises EnvironmentFailed if it ended."""
        if self._process.returncode is not None:
            raise EnvironmentFailed(self._that(f"ended with exit code {self._process.returncode}"))

    def terminate(self) -> None:
        """SIGTERM. Raises EnvironmentFailed if it has ended before."""
        self.check()
        self._process.terminate()

    async def drained(self) -> None:
        """Its clean end. Raises EnvironmentFailed for any other end."""
        try:
            code = await asyncio.wait_for(self._process.wait(), DRAIN_WITHIN)
        except TimeoutError:
            raise EnvironmentFailed(self._that(f"did not drain within {DRAIN_WITHIN:g} s")) from None
        if code != 0:
            raise EnvironmentFailed(self._that(f"drained with exit code {code}"))

    async def kill(self) -> None:
        """Whatever it is doing: what it wrote goes with the demo's folder."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def _that(self, what: str) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-TAIL:]
        tail = "\n".join(["; the end of its log:", *lines]) if lines else ""
        return f"the worker {self.id} {what}{tail}"


async def drain(workers: Sequence[Worker]) -> None:
    """SIGTERM for all at once, and their clean ends. Raises EnvironmentFailed for any other end."""
    for worker in workers:
        worker.terminate()
    for worker in workers:
        await worker.drained()


class Environment:
    """The demo's files in ``folder``, which is the caller's to remove."""

    def __init__(self, folder: Path, bootstrap: str, delays: Sequence[str]) -> None:
        self.switch = Switch(folder / "fault.json")
        repository = folder / "models"  # a copy: what the story adds to it must not be what others serve
        shutil.copytree(Path(models.__file__).parent / "repository", repository)
        self.file = folder / settings.FILE
        self.file.write_text(
            PIPELINE.format(
                bootstrap=bootstrap,
                partitions=PARTITIONS,
                delays=", ".join(f'"{delay}"' for delay in delays),
                repository=repository,
            )
        )
        # Not the user's environment: it may name a cluster that is in earnest.
        self.pipeline: Settings = settings.load(self.file, {})

    @asynccontextmanager
    async def fleet(self) -> AsyncIterator[list[Worker]]:
        """All workers, ready; each that is still there when the block ends is killed. Raises EnvironmentFailed."""
        async with AsyncExitStack() as stack:
            workers = [await stack.enter_async_context(self._worker(id)) for id in WORKERS]
            for worker in workers:  # they start side by side: who is ready first has its word kept in the pipe
                await worker.ready()
            yield workers

    @asynccontextmanager
    async def _worker(self, id: str) -> AsyncIterator[Worker]:
        path = self.file.with_name(f"{id}.log")
        with path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "failsoft.workers.demo.worker",
                str(self.file),
                str(self.switch.path),
                id,
                stdin=asyncio.subprocess.PIPE,  # it ends when this closes: with us, however we go
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={name: value for name, value in os.environ.items() if not name.startswith(settings.ENV)},
                cwd=self.file.parent,  # `-m` looks here first: no folder of the user's may stand in for a package
                start_new_session=True,  # a terminal's Ctrl-C is for us
            )
        worker = Worker(id, process, path)
        try:
            yield worker
        finally:
            await worker.kill()
