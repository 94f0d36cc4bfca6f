"""A worker whose primary fails for every row while one file exists, and hangs while another one exists.

Run ``python -m tests.integration.switched PIPELINE SWITCH ID``. The second file is SWITCH with the suffix ``.stuck``.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from failsoft.models.runtime.session import Cancel, ModelOutput
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.workers import settings
from failsoft.workers.process import serve
from failsoft.workers.process.composition import Options
from failsoft.workers.serving.loader import Model
from failsoft.workers.telemetry import logs


@dataclass
class Switched:
    """A session (workers.execution.runner.Runs) that fails while one file exists and hangs while another one exists."""

    session: Model
    switch: Path

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        while self.switch.with_suffix(".stuck").exists():
            threading.Event().wait(0.05)
        if self.switch.exists():
            return Failure(Kind.MODEL_ERROR, "the switch is on")
        return self.session.run(columns, cancel)


def main(argv: list[str]) -> int:
    file, switch, worker_id = Path(argv[0]), Path(argv[1]), argv[2]
    logs.configure(terminal=False)
    options = Options(worker_id, wrap=lambda session: Switched(session, switch))
    return serve.run(settings.load(file, os.environ), options, lambda address: print("is ready", address, flush=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
