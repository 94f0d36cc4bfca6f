"""Where the demo plays: a folder of its own, a pipeline file, and a worker in a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import models
from workers import settings
from workers.demo.fault import Switch
from workers.settings import Settings

PARTITIONS = 4
"""Four lanes: enough that ordering and ownership are by partition, as in earnest."""

READY_WITHIN = 60.0
"""Seconds for the worker to load its models and get its lanes: two are usual, a busy machine takes ten."""

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


class StageFailed(Exception):
    """The worker did not do as it should; says what its log says."""


class Worker:
    """A running worker process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log
        self.address = ""

    async def ready(self) -> None:
        """Returns once it has its lanes. Raises StageFailed."""
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), READY_WITHIN)
        except TimeoutError:
            raise StageFailed(f"the worker was not ready after {READY_WITHIN:g} s{self._tail()}") from None
        if not line:
            raise StageFailed(f"the worker ended before it was ready{self._tail()}")
        self.address = line.decode().strip()

    def check(self) -> None:
        """Raises StageFailed if it ended."""
        if self._process.returncode is not None:
            raise StageFailed(f"the worker ended with exit code {self._process.returncode}{self._tail()}")

    async def drain(self) -> None:
        """SIGTERM, and its clean end. Raises StageFailed for any other end."""
        self.check()
        self._process.terminate()
        try:
            code = await asyncio.wait_for(self._process.wait(), DRAIN_WITHIN)
        except TimeoutError:
            raise StageFailed(f"the worker did not drain within {DRAIN_WITHIN:g} s{self._tail()}") from None
        if code != 0:
            raise StageFailed(f"the worker drained with exit code {code}{self._tail()}")

    async def kill(self) -> None:
        """Whatever it is doing: what it wrote goes with the demo's folder."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-TAIL:]
        return "\n".join(["; the end of its log:", *lines]) if lines else ""


class Stage:
    """The demo's files in ``folder``, which is the caller's to remove."""

    def __init__(self, folder: Path, bootstrap: str, delays: Sequence[str]) -> None:
        self.switch = Switch(folder / "fault.json")
        self.file = folder / settings.FILE
        self.log = folder / "worker.log"
        self.file.write_text(
            PIPELINE.format(
                bootstrap=bootstrap,
                partitions=PARTITIONS,
                delays=", ".join(f'"{delay}"' for delay in delays),
                repository=Path(models.__file__).parent / "repository",
            )
        )
        # Not the user's environment: it may name a cluster that is in earnest.
        self.pipeline: Settings = settings.load(self.file, {})

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        """A worker from start to end; killed if it is still there when the block ends."""
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "workers.demo.worker",
                str(self.file),
                str(self.switch.path),
                stdin=asyncio.subprocess.PIPE,  # it ends when this closes: with us, however we go
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={name: value for name, value in os.environ.items() if not name.startswith(settings.ENV)},
                cwd=self.file.parent,  # `-m` looks here first: no folder of the user's may stand in for a package
                start_new_session=True,  # a terminal's Ctrl-C is for us
            )
        worker = Worker(process, self.log)
        try:
            yield worker
        finally:
            await worker.kill()
