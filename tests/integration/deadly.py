"""A worker whose primary kills it natively on one value of a feature, in the worker's own process.

``python -m tests.integration.deadly PIPELINE CALM ID``: while the file CALM exists, such a row only fails.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from failsoft.models.runtime.session import Cancel, ModelOutput, Session
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features import Columns
from failsoft.workers import settings
from failsoft.workers.process import serve
from failsoft.workers.process.composition import Options
from failsoft.workers.telemetry import logs

DEADLY = 13.0
"""The value of ``x``."""


@dataclass
class Deadly:
    """A session (workers.execution.runner.Runs) that a row with ``x`` = DEADLY ends, and its whole process with it."""

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
