"""A failsoft worker with timed phases; when it ends, it writes them to a file in nanoseconds per event."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.phases import Phases
from benchmarks.programs import stamped
from failsoft.models.runtime.session import Session
from failsoft.schemas import scored, wire
from failsoft.workers import settings
from failsoft.workers.execution.runner import Runner
from failsoft.workers.kafka import fetcher
from failsoft.workers.kafka.chunk import Chunk
from failsoft.workers.kafka.transactional_producer import TransactionalProducer
from failsoft.workers.lanes import committer, lane
from failsoft.workers.lanes.lane import Lane
from failsoft.workers.process import serve
from failsoft.workers.process.composition import Options
from failsoft.workers.scoring import calls
from failsoft.workers.scoring import score as scoring
from failsoft.workers.telemetry import logs
from failsoft.workers.telemetry.report import Reporter

MODEL = "run: the model, on its thread"
REST = "network, aiokafka's own tasks, event loop"
OTHER = "other threads, the interpreter's waits"


def patch(phases: Phases) -> None:
    """Wraps the real functions where they are called."""
    phases.function(fetcher, "Chunk", "fetch: find the batches, check them")
    phases.function(Chunk, "take", "fetch: bytes to records")
    phases.coroutine(Lane, "_take", "take: which, and what is due")
    phases.function(wire, "loads_all", "decode: JSON")
    phases.function(wire, "all_shallow", "decode: depth")
    phases.function(scoring, "decode", "decode: ids, times, features")
    phases.function(calls, "columns", "features: columns and types")
    phases.function(calls, "impute", "impute")
    phases.function(Session, "run", MODEL)
    phases.coroutine(Runner, "_run", "run: hand over and watch")
    phases.generator(lane, "score", "score: breaker and plan")
    phases.function(scoring, "conclude", "conclude")
    phases.function(scored, "encode", "encode: the scored record")
    phases.function(lane, "route", "route")
    phases.function(committer, "pack", "pack: produce batches")
    phases.coroutine(TransactionalProducer, "commit", "commit: add, produce, offsets, end")
    phases.function(Reporter, "committed", "report: metrics")
    phases.collector("the garbage collector")


class Whole:
    """CPU time of the loop's thread and of the process from the first batch to the last commit, and the events."""

    def __init__(self, phases: Phases) -> None:
        self._begin: tuple[int, int] | None = None
        self._end = (0, 0)
        self._events = 0
        self._at_end: dict[str, int] = {}
        process, on_commit = Lane._process, Lane._on_commit

        async def processed(own: Lane, taken: Any) -> None:
            if self._begin is None:
                phases.clear()
                self._begin = time.thread_time_ns(), time.process_time_ns()
            await process(own, taken)

        def committed(own: Lane, batch: Any) -> None:
            on_commit(own, batch)
            self._events += len(batch.records)
            self._end = time.thread_time_ns(), time.process_time_ns()
            self._at_end = phases.spent()

        Lane._process, Lane._on_commit = processed, committed  # type: ignore[method-assign]
        phases.coroutine(Lane, "_process", "lane: the rest")

    def each(self) -> dict[str, float]:
        """Nanoseconds per event by phase; the phases add up to the process's CPU time."""
        assert self._begin is not None, "no batch was processed"
        loop, whole = (b - a for a, b in zip(self._begin, self._end, strict=True))
        model = self._at_end.get(MODEL, 0)
        known = sum(self._at_end.values()) - model
        spent = {**self._at_end, REST: loop - known, OTHER: whole - loop - model}
        return {phase: ns / self._events for phase, ns in spent.items()}


def main() -> int:
    """Runs until SIGTERM, then writes the phases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    given = parser.parse_args()
    logs.configure("warning")
    pipeline = settings.load(given.pipeline, os.environ)
    stamped.allow()
    phases = Phases()
    patch(phases)
    whole = Whole(phases)
    code = serve.run(pipeline, Options(worker_id=f"{pipeline.name}-worker"))
    given.to.write_text(json.dumps(whole.each()))
    return code


if __name__ == "__main__":
    sys.exit(main())
