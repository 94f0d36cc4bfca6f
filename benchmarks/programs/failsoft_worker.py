"""A failsoft worker, as ``failsoft worker`` runs it, whose primary can fail in several ways for the measurement."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.events import ODD
from benchmarks.model import PRIMARY
from benchmarks.programs import stamped
from failsoft.models.breaker.rules import BreakerState
from failsoft.models.catalog.card import ModelCard
from failsoft.models.runtime.session import Cancel, ModelOutput
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.fleet.breaker import BreakerRow
from failsoft.workers import settings
from failsoft.workers.execution import batch_size
from failsoft.workers.execution.runner import Runs
from failsoft.workers.lanes.lane import Lane
from failsoft.workers.process import serve as process
from failsoft.workers.process.composition import Options
from failsoft.workers.scoring.plan import Served
from failsoft.workers.serving.loader import Model
from failsoft.workers.serving.registry import ServingRegistry
from failsoft.workers.telemetry import logs

GATE_EVERY = 0.02
"""Seconds between two checks for the gate's file."""


class Down:
    """A primary whose every call fails."""

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        """Fails the whole batch; the runner bisects it as with a real model."""
        return Failure(Kind.MODEL_ERROR, "down, for the benchmark")


def fail_primary(session: Model) -> Runs:
    """Replaces the primary by one that is down; its fallback still works."""
    return Down() if session.model == PRIMARY else session


@dataclass(frozen=True, slots=True)
class DownWhile:
    """A primary that fails while the file ``switch`` exists."""

    session: Model
    switch: Path

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        """Checks the file on each call, which costs a microsecond or two."""
        return (Down() if self.switch.exists() else self.session).run(columns, cancel)


@dataclass(frozen=True, slots=True)
class OddRows:
    """A primary that fails the odd rows: each one alone, as with a NaN, or the whole batch (``raises``)."""

    session: Model
    raises: bool

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        """A row is odd because of its own features, independently of the other rows."""
        name, below = ODD
        odd = np.flatnonzero(columns.values[name] < below).tolist()
        if odd and self.raises:
            return Failure(Kind.MODEL_ERROR, "an odd row, for the benchmark")
        outcome = self.session.run(columns, cancel)
        if isinstance(outcome, ModelOutput):
            outcome.bad.update(dict.fromkeys(odd, Failure(Kind.BAD_OUTPUT, "NaN, for the benchmark")))
        return outcome


def force_open() -> None:
    """Puts the primary's breaker in the state of ``failsoft breakers open`` before the first event."""
    serve = ServingRegistry.serve

    def opened(registry: ServingRegistry, served: Served, card: ModelCard) -> None:
        serve(registry, served, card)
        if served.model == PRIMARY:
            registry.absorb(BreakerRow(served.key, BreakerState.FORCED_OPEN.value, 1, reason="for the benchmark"))

    ServingRegistry.serve = opened  # type: ignore[method-assign]


def wait_at(gate: Path) -> None:
    """Lanes start when the file ``gate`` exists, so that compared workers start together however long joining takes."""
    run = Lane.run

    async def gated(lane: Lane) -> None:
        while not gate.exists() and not lane._closing:
            await asyncio.sleep(GATE_EVERY)
        await run(lane)

    Lane.run = gated  # type: ignore[method-assign]


def main() -> int:
    """Runs until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--down", action="store_true", help="the primary fails every call")
    parser.add_argument(
        "--down-while",
        type=Path,
        metavar="FILE",
        help="the primary fails while FILE exists; breaker transitions are logged",
    )
    parser.add_argument("--odd-rows", choices=("bad", "raise"), help="one row in a hundred fails")
    parser.add_argument("--breaker-open", action="store_true", help="the primary is not called")
    parser.add_argument("--batch", type=int, metavar="N", help="at most N records per transaction and partition")
    parser.add_argument("--gate", type=Path, metavar="FILE", help="score nothing until FILE exists")
    parser.add_argument("--id")
    given = parser.parse_args()
    logs.configure("info" if given.down_while else "warning")
    pipeline = settings.load(given.pipeline, os.environ)
    worker = given.id or f"{pipeline.name}-worker"

    def wrap(session: Model) -> Runs:
        if session.model != PRIMARY:
            return session
        if given.down:
            return fail_primary(session)
        if given.odd_rows:
            return OddRows(session, given.odd_rows == "raise")
        return DownWhile(session, given.down_while) if given.down_while is not None else session

    stamped.allow()
    if given.breaker_open:
        force_open()
    if given.gate:
        wait_at(given.gate)
    if given.batch:
        batch_size.FIRST_LIMIT, batch_size.LARGEST = min(batch_size.FIRST_LIMIT, given.batch), given.batch
    return process.run(pipeline, Options(worker_id=worker, wrap=wrap))


if __name__ == "__main__":
    sys.exit(main())
