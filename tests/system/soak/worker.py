"""A worker whose model fails on request, by files in a folder, and that stops itself in a commit on request.

Run ``python -m tests.system.soak.worker PIPELINE FOLDER ID [OPTION …]``. A mood (``mood``, or ``mood.ID`` for one
worker) changes the input of the real model, so that the failures are ONNX Runtime's own. The orders to stop (SIGSTOP)
and the options, among them the workers that are broken on purpose, are those of tests.system.stops.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from failsoft.models.runtime.session import Cancel, ModelOutput
from failsoft.schemas.failure import Failure
from failsoft.schemas.features.columns import Columns
from failsoft.workers import settings
from failsoft.workers.process import serve
from failsoft.workers.process.composition import Options
from failsoft.workers.serving.loader import Model
from failsoft.workers.telemetry import logs
from tests.system import stops

DEADLY = 13.0
"""The value of ``x`` that ends the process natively."""

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


def main(argv: list[str]) -> int:
    file, folder, worker_id = Path(argv[0]), Path(argv[1]), argv[2]
    stops.install(stops.Stops(folder, worker_id), *argv[3:])
    logs.configure(terminal=False)
    options = Options(worker_id, wrap=lambda session: Moody(session, folder, worker_id))
    return serve.run(settings.load(file, os.environ), options, lambda address: print("is ready", address, flush=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
