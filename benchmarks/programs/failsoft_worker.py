"""A failsoft worker, as ``failsoft worker`` runs it; ``--down`` makes its primary fail each call, and ``--down-while``
each call while a file is there.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.model import PRIMARY
from models.session import Cancel, Outcome
from schemas.failure import Failure, Kind
from schemas.features import Columns
from workers import logs, process, settings
from workers.app import Options
from workers.runner import Runs
from workers.sessions import Model


class Down:
    """A primary of which every call fails."""

    def run(self, columns: Columns, cancel: Cancel | None = None) -> Outcome | Failure:
        """A failure for the whole batch; the runner splits it, as it would one of a model."""
        return Failure(Kind.MODEL_ERROR, "down, for the benchmark")


def fail_primary(session: Model) -> Runs:
    """The primary is down; its fallback is not."""
    return Down() if session.model == PRIMARY else session


@dataclass(frozen=True, slots=True)
class DownWhile:
    """A primary that fails while ``switch`` is there."""

    session: Model
    switch: Path

    def run(self, columns: Columns, cancel: Cancel | None = None) -> Outcome | Failure:
        """A look at the file costs a microsecond or two."""
        return (Down() if self.switch.exists() else self.session).run(columns, cancel)


def main() -> int:
    """Runs until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--down", action="store_true")
    parser.add_argument("--down-while", type=Path, metavar="FILE", help="and say in the log how the breakers move")
    parser.add_argument("--id")
    given = parser.parse_args()
    logs.configure("info" if given.down_while else "warning")
    pipeline = settings.load(given.pipeline, os.environ)
    worker = given.id or f"{pipeline.name}-worker"

    def wrap(session: Model) -> Runs:
        if given.down:
            return fail_primary(session)
        switched = given.down_while is not None and session.model == PRIMARY
        return DownWhile(session, given.down_while) if switched else session

    return process.run(pipeline, Options(worker_id=worker, wrap=wrap))


if __name__ == "__main__":
    sys.exit(main())
