"""Rows that hang their model, and runs that never come back, on a real Kafka: the promise kept, the worker alive."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from tests.integration.pipeline import Pipeline, body, events, running
from tests.kafka import Broker


def test_a_row_that_hangs_is_answered_by_the_fallback_and_its_neighbours_by_the_primary(
    kafka: Broker, name: str, tmp_path: Path
) -> None:
    """One such row a lane, beside one that raises: each is provisional, retried, confirmed and dead as ``timeout``; a
    thousand neighbours are answered by the primary at once, and the worker goes on.
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, deadline="1s")
    with running(pipeline) as settlement:
        bad = [(b"bad", body(10_000 + i, row=(-1, 7)[i // 4]), [], i % 4) for i in range(8)]
        pipeline.publish([*events(500), *bad, *events(500, start=500)])
        worker = pipeline.start()
        settlement.wait_final(pipeline.published, 90)
        pipeline.publish(events(100, start=2000))
        settlement.wait_final(pipeline.published, 30)
        assert worker.drain() == 0, worker.tail()
        verdict = settlement.verdict()
        letters = Counter(r.header("failsoft-error-kind") for r in settlement.reader.records[settlement.dead])
    assert not verdict.broken, str(verdict)
    assert verdict.counts == Counter({"primary": 1100, "confirmed: timeout": 4, "confirmed: model_error": 4})
    assert letters == Counter({"timeout": 4, "model_error": 4})


def test_a_worker_ends_in_order_although_its_model_never_comes_back(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Each event is answered by the fallback; SIGTERM drains, and no lost thread keeps the process."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, deadline="300ms", delays=["1m"])
    with running(pipeline) as settlement:
        pipeline.stuck.touch()
        pipeline.publish(events(40))
        worker = pipeline.start(switched=True)
        settlement.wait_answered(40)
        began = time.monotonic()
        assert worker.drain() == 0, worker.tail()
        assert time.monotonic() - began < 15
        assert "its thread is lost" in worker.log.read_text()
        verdict = settlement.verdict()
    assert verdict.counts == Counter({"never final": 40}), "each waits on its rung for the next owner"
    assert set(verdict.broken) == {"never final"}, str(verdict)
