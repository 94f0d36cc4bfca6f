"""The worker started by Faust's own command, on a real Kafka."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.integration.pipeline import Pipeline, events, running
from tests.kafka import Broker


def test_faust_starts_the_same_worker(tmp_path: Path, kafka: Broker, name: str) -> None:
    """`faust -A failsoft.workers.app worker` answers events with settings from the environment."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    with running(pipeline) as settlement:
        environment = [f"FAILSOFT_PIPELINE={pipeline.file}", f"FAILSOFT_WORKER_ID={name}"]
        faust = [sys.executable, "-m", "faust", "-A", "failsoft.workers.app", "worker", "--without-web"]
        pipeline.spawn("faust", ["env", *environment, *faust])
        pipeline.publish(events(50))
        settlement.wait_answered(50)
        verdict = settlement.verdict()
        assert not verdict.broken, f"{verdict}\n{pipeline.logs()}"
