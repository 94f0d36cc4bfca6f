"""A failsoft worker, as ``failsoft worker`` runs it; ``--down`` makes its primary fail each call."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.model import PRIMARY
from models.session import Cancel, Outcome, Session
from schemas.failure import Failure, Kind
from schemas.features import Columns
from workers import logs, process, settings
from workers.app import Options
from workers.runner import Runs


class Down:
    """A primary of which every call fails."""

    def run(self, columns: Columns, cancel: Cancel | None = None) -> Outcome | Failure:
        """A failure for the whole batch; the runner splits it, as it would one of a model."""
        return Failure(Kind.MODEL_ERROR, "down, for the benchmark")


def fail_primary(session: Session) -> Runs:
    """The primary is down; its fallback is not."""
    return Down() if session.model == PRIMARY else session


def main() -> int:
    """Runs until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--down", action="store_true")
    given = parser.parse_args()
    logs.configure("warning")
    pipeline = settings.load(given.pipeline, os.environ)
    worker = f"{pipeline.name}-worker"
    options = Options(worker_id=worker, wrap=fail_primary) if given.down else Options(worker_id=worker)
    return process.run(pipeline, options)


if __name__ == "__main__":
    sys.exit(main())
