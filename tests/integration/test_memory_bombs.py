"""A version that allocates 800 MB when loaded, beside a good one, on a real Kafka: no process takes that memory."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.failing import save_bomb
from tests.integration.pipeline import Pipeline, events, running
from tests.isolated_models import most, processes
from tests.kafka import Broker

N = 200


@pytest.mark.parametrize("card", ["", 'isolation = "process"\nmemory = "512MB"'], ids=["thread", "process"])
def test_a_bomb_is_neither_promoted_nor_served(kafka: Broker, name: str, tmp_path: Path, card: str) -> None:
    """A version that needs too much memory is neither promoted nor served.

    ``models promote`` refuses it with the reason. A worker whose newest version it is logs that and serves the version
    before. The worker and its model's processes stay small.
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, model_lines=card)
    save_bomb(tmp_path / "models" / "test" / "2" / "model.onnx")
    with running(pipeline) as settlement:
        refused = pipeline.run("models", "promote", "test@2")
        assert refused.returncode == 1, refused.stderr.decode()
        assert b"may not serve" in refused.stderr and b"needs more than 512 MB" in refused.stderr
        worker = pipeline.start()
        worker.wait_ready()
        pipeline.publish(events(N))
        settlement.wait_final(N)
        pids = [worker.process.pid, *(p.pid for p in processes(worker.process.pid))]
        assert all(most(pid) < 400_000_000 for pid in pids), [most(pid) for pid in pids]
        assert len(pids) == (3 if card else 1)
        assert worker.drain() == 0, worker.tail()
        verdict = settlement.verdict()
        scored = [json.loads(r.value or b"") for r in settlement.reader.records[settlement.scored]]
    assert not verdict.broken, str(verdict)
    assert verdict.counts == Counter(primary=N)
    assert {answer["version"] for answer in scored} == {1}
    log = worker.log.read_text()
    assert "a version cannot serve, trying the one before" in log and "needs more than 512 MB" in log
