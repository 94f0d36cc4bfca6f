"""A worker whose primary aborts the worker's own process on one value of a feature.

Run ``python -m tests.integration.deadly PIPELINE CALM ID``. While the file CALM exists, such a row only fails.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from failsoft.models.runtime.session import Cancel, ModelOutput, Session
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.workers import settings
from failsoft.workers.process import serve
from failsoft.workers.process.composition import Options
from failsoft.workers.telemetry import logs

DEADLY = 13.0
"""The value of ``x`` that aborts the process."""


@dataclass
class Deadly:
    """A session (workers.execution.runner.Runs) that aborts its process on a row with ``x`` = DEADLY."""

    session: Session
    calm: Path

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        if np.any(columns.values["x"] == DEADLY):
            if not self.calm.exists():
                os.abort()
            return Failure(Kind.MODEL_ERROR, "calm")
        return self.session.run(columns, cancel)


def main(argv: list[str]) -> int:
    file, calm, worker_id = Path(argv[0]), Path(argv[1]), argv[2]
    logs.configure(terminal=False)
    options = Options(worker_id, wrap=lambda session: Deadly(session, calm))
    return serve.run(settings.load(file, os.environ), options, lambda address: print("is ready", address, flush=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
