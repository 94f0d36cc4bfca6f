"""A worker whose model and commits fail on request, by files in a folder.

Run ``python -m tests.system.soak.worker PIPELINE FOLDER ID [offsets-before-fencing]``. A mood (``mood``, or ``mood.ID``
for one worker) changes the input of the real model, so that the failures are ONNX Runtime's own. ``freeze.ID`` makes
the worker stop itself (SIGSTOP) between scoring a batch and committing it. With ``offsets-before-fencing`` its lanes
read their offsets before they fence the former owner. This is the wrong order, which the soak must detect.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from aiokafka import TopicPartition

from failsoft.models.runtime.session import Cancel, ModelOutput
from failsoft.schemas.failure import Failure
from failsoft.schemas.features import Columns
from failsoft.topics.routing import OutgoingRecord
from failsoft.workers import settings
from failsoft.workers.lanes import assignment
from failsoft.workers.lanes.lane import Lane
from failsoft.workers.lanes.transaction import OffsetAndMetadata
from failsoft.workers.process import serve
from failsoft.workers.process.composition import Options
from failsoft.workers.serving.loader import Model
from failsoft.workers.telemetry import logs

DEADLY = 13.0
"""The value of ``x`` that ends the process natively."""

BROKEN = "offsets-before-fencing"

MOODS: Mapping[str, tuple[str, float]] = {
    "bad output": ("x", 2.0),
    "NaN": ("x", np.nan),
    "raises": ("row", 7),
    "hangs": ("row", -1),
}
"""The feature that a mood overwrites in every row, and its value (see tests.integration.pipeline.save_model)."""

DEAF = "deaf"
"""While this is the mood, a run does not return, whatever its deadline."""


SEEN = "mood.seen"
"""A file that exists once events have met the mood."""


@dataclass
class Moody:
    """A session (failsoft.workers.execution.runner.Runs) that fails according to the mood."""

    session: Model
    folder: Path
    id: str

    def mood(self) -> str:
        for file in (self.folder / "mood", self.folder / f"mood.{self.id}"):
            try:
                return file.read_text()
            except FileNotFoundError:
                continue
        return ""

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        if np.any(columns.values["x"] == DEADLY):
            os.abort()
        while self.mood() == DEAF:
            (self.folder / SEEN).touch()
            threading.Event().wait(0.05)
        if change := MOODS.get(self.mood()):
            (self.folder / SEEN).touch()
            name, value = change
            column = np.full_like(columns.values[name], value)
            columns = replace(columns, values=columns.values | {name: column}, matrix=None)
        return self.session.run(columns, cancel)


class Freezing(Lane):
    """A lane that stops its own process before a commit on request, with a scored batch not yet committed."""

    folder: Path
    id: str

    def _told_to_stop(self) -> bool:
        try:
            (self.folder / f"freeze.{self.id}").unlink()
        except FileNotFoundError:
            return False
        return True

    async def _prepare(self) -> None:
        """Does nothing; a subclass prepares the stop here."""

    async def _commit(
        self, routed: Sequence[tuple[str, list[OutgoingRecord]]], offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> None:
        stops = bool(routed) and self._told_to_stop()
        if stops:
            await self._prepare()
            print(f"stops before a commit of lane {self.index}", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        await super()._commit(routed, offsets)
        if stops:
            print(f"its commit of lane {self.index} went through", flush=True)


class Hasty(Freezing):
    """Broken on purpose: reads the offsets before it fences the former owner, which may commit in between."""

    async def _open(self) -> None:
        await super()._seek([*self._live, *sorted(self.ladder)])
        print(f"has read the offsets of lane {self.index}", flush=True)
        while (self.folder / "gate").exists():
            await asyncio.sleep(0.02)
        await super()._open()

    async def _seek(self, tps: list[TopicPartition]) -> None:
        """Does nothing: ``_open`` has read the offsets."""

    async def _prepare(self) -> None:
        """Stops the heartbeat before the process stops.

        Otherwise the continued worker would rejoin its group. That would move the lanes again and make the order of
        commit and fencing a matter of chance.
        """
        await self._consumer._coordinator._stop_heartbeat_task()


def main(argv: list[str]) -> int:
    file, folder, worker_id = Path(argv[0]), Path(argv[1]), argv[2]
    lane = Hasty if BROKEN in argv[3:] else Freezing
    lane.folder, lane.id = folder, worker_id
    assignment.Lane = lane  # type: ignore[misc]
    logs.configure(terminal=False)
    options = Options(worker_id, wrap=lambda session: Moody(session, folder, worker_id))
    return serve.run(settings.load(file, os.environ), options, lambda address: print("is ready", address, flush=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
