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
from failsoft.models.runtime.session import Session
from failsoft.schemas import scored, wire
from failsoft.workers import settings
from failsoft.workers.execution.runner import Runner
from failsoft.workers.kafka import fetch_records
from failsoft.workers.lanes import lane, transaction
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
    phases.function(fetch_records._RecordBatch, "__iter__", "fetch: bytes to records")
    phases.function(fetch_records.Fetched, "getall", "fetch: aiokafka's ConsumerRecords")
    phases.coroutine(Lane, "_take", "fetch: which, and what is due")
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
    phases.function(transaction, "pack", "pack: produce batches")
    phases.coroutine(lane, "commit", "commit: begin, send, offsets, end")
    phases.function(Reporter, "committed", "report: metrics")
    phases.collector("the garbage collector")


class Whole:
    """CPU time of the loop's thread and of the process from the first batch to the last, and the number of events."""

    def __init__(self, phases: Phases) -> None:
        self._begin: tuple[int, int] | None = None
        self._end = (0, 0)
        self._events = 0
        self._at_end: dict[str, int] = {}
        settle = Lane._settle

        async def settled(own: Lane, records: Any, *args: Any) -> None:
            if self._begin is None:
                phases.clear()
                self._begin = time.thread_time_ns(), time.process_time_ns()
            await settle(own, records, *args)
            self._events += len(records)
            self._end = time.thread_time_ns(), time.process_time_ns()
            self._at_end = phases.spent()

        Lane._settle = settled  # type: ignore[method-assign]
        phases.coroutine(Lane, "_settle", "lane: the rest")

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
    phases = Phases()
    patch(phases)
    whole = Whole(phases)
    code = serve.run(pipeline, Options(worker_id=f"{pipeline.name}-worker"))
    given.to.write_text(json.dumps(whole.each()))
    return code


if __name__ == "__main__":
    sys.exit(main())
