"""The demo's environment: a folder, a pipeline file, and workers, each in its own process."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from failsoft import models
from failsoft.workers import connection, settings
from failsoft.workers.demo.fault import Switch
from failsoft.workers.settings import Settings

WORKERS = ("demo-1", "demo-2")
"""The ids of the workers. Two are enough to show a fleet: both obey the same breaker."""

PARTITIONS = 4
"""Partitions, and so lanes: two for each worker, so that order and ownership are by partition, as in production."""

READY_WITHIN = 60.0
"""Seconds for a worker to load its models, get its lanes and read the fleet's breakers. Five are usual, and twenty on a
busy machine."""

DRAIN_WITHIN = 40.0
"""Seconds for a worker to end after SIGTERM. A commit may take 12 s, a drain 26 s."""

TAIL = 3
"""Lines of the worker's log shown in an error; the last one is a JSON object with the traceback."""

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
    """A worker or an order did not behave as expected; the message has the end of the worker's log."""


class Worker:
    """A running worker process. ``address`` is the URL of its HTTP server once it is ready."""

    def __init__(self, id: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.id = id
        self._process = process
        self._log = log
        self.address = ""

    async def ready(self) -> None:
        """Waits until the worker has its lanes and has read the fleet's breakers. Raises EnvironmentFailed."""
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), READY_WITHIN)
        except TimeoutError:
            raise EnvironmentFailed(self._problem(f"was not ready after {READY_WITHIN:g} s")) from None
        if not line:
            raise EnvironmentFailed(self._problem("ended before it was ready"))
        self.address = line.decode().strip()

    def check(self) -> None:
        """Raises EnvironmentFailed if the worker has ended."""
        if self._process.returncode is not None:
            raise EnvironmentFailed(self._problem(f"ended with exit code {self._process.returncode}"))

    def terminate(self) -> None:
        """Sends SIGTERM. Raises EnvironmentFailed if the worker has already ended."""
        self.check()
        self._process.terminate()

    async def drained(self) -> None:
        """Waits for the worker to exit with 0. Raises EnvironmentFailed for another exit code or after a timeout."""
        try:
            code = await asyncio.wait_for(self._process.wait(), DRAIN_WITHIN)
        except TimeoutError:
            raise EnvironmentFailed(self._problem(f"did not drain within {DRAIN_WITHIN:g} s")) from None
        if code != 0:
            raise EnvironmentFailed(self._problem(f"drained with exit code {code}"))

    async def kill(self) -> None:
        """Kills the worker if it still runs. Its files are deleted with the demo's folder."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def _problem(self, problem: str) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-TAIL:]
        tail = "\n".join(["; the end of its log:", *lines]) if lines else ""
        return f"the worker {self.id} {problem}{tail}"


async def drain(workers: Sequence[Worker]) -> None:
    """Sends SIGTERM to all workers at once and waits for their exits. Raises EnvironmentFailed as ``drained`` does."""
    for worker in workers:
        worker.terminate()
    for worker in workers:
        await worker.drained()


class Environment:
    """The demo's files in ``folder``; the caller deletes the folder."""

    def __init__(self, folder: Path, bootstrap: str, delays: Sequence[str]) -> None:
        self.switch = Switch(folder / "fault.json")
        repository = folder / "models"  # a copy, because the demo adds a bad version to it
        shutil.copytree(Path(models.__file__).parent / "repository", repository)
        self.file = folder / connection.FILE
        self.file.write_text(
            PIPELINE.format(
                bootstrap=bootstrap,
                partitions=PARTITIONS,
                delays=", ".join(f'"{delay}"' for delay in delays),
                repository=repository,
            )
        )
        # The user's environment variables are ignored: they may name a production cluster.
        self.pipeline: Settings = settings.load(self.file, {})

    @asynccontextmanager
    async def fleet(self) -> AsyncIterator[list[Worker]]:
        """Starts all workers and waits until they are ready; kills those still running at the end of the block.

        Raises EnvironmentFailed.
        """
        async with AsyncExitStack() as stack:
            workers = [await stack.enter_async_context(self._worker(id)) for id in WORKERS]
            for worker in workers:  # they start side by side; a ready worker's line waits in the pipe
                await worker.ready()
            yield workers

    @asynccontextmanager
    async def _worker(self, id: str) -> AsyncIterator[Worker]:
        path = self.file.with_name(f"{id}.log")
        with path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "failsoft.workers.demo.worker",
                str(self.file),
                str(self.switch.path),
                id,
                stdin=asyncio.subprocess.PIPE,  # the worker exits when this closes, so also when the demo is killed
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={name: value for name, value in os.environ.items() if not name.startswith(settings.ENV)},
                cwd=self.file.parent,  # `-m` searches here first, so no folder of the user can shadow a package
                start_new_session=True,  # only the demo itself gets a terminal's Ctrl-C
            )
        worker = Worker(id, process, path)
        try:
            yield worker
        finally:
            await worker.kill()
