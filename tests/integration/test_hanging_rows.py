"""Model runs that never return, on a real Kafka: the worker keeps the promise and drains (rows: test_failing_rows)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.integration.pipeline import Pipeline, events, running
from tests.kafka import Broker


def test_a_worker_ends_in_order_although_its_model_never_comes_back(kafka: Broker, name: str, tmp_path: Path) -> None:
    """With a model that never returns, each event is answered by the fallback; SIGTERM drains despite lost threads."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, deadline="300ms", delays=["1m"])
    with running(pipeline) as settlement:
        pipeline.stuck.touch()
        pipeline.publish(events(40))
        worker = pipeline.start(switched=True)
        settlement.wait_answered(40)
        assert worker.drain(30) == 0, worker.tail()  # Kubernetes' default grace period
        assert "its thread is lost" in worker.log.read_text()
        verdict = settlement.verdict()
    assert verdict.counts == Counter({"never final": 40}), "each event waits on its rung for the next worker"
    assert set(verdict.broken) == {"never final"}, str(verdict)
