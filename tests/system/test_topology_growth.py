"""Partitions are added under load, with rolling restarts in between: nothing lost or twice, all lanes read in 30 s."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.integration.pipeline import Pipeline, body, running
from tests.integration.verifier import Settlement
from tests.kafka import Broker, wait_for

LANES_WITHIN = 30.0


@pytest.mark.long
def test_four_partitions_become_six_and_twelve_under_load(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Three static workers; every tenth event is never answered by the primary, so that all rungs are in use."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=4)
    partitions, ended = 4, threading.Event()

    def feed() -> None:
        i = 0
        while not ended.is_set():
            batch = range(i, i + 100)
            pipeline.publish(
                [(b"k%d" % (j % 97), body(j, x=2.0 if j % 10 == 3 else 0.5), (), j % partitions) for j in batch]
            )
            i += 100
            ended.wait(0.2)

    reader = Consumer(
        {"bootstrap.servers": kafka.bootstrap, "group.id": "none", "topic.metadata.refresh.interval.ms": 500}
    )

    def answered(lanes: int) -> bool:
        try:
            ends = [reader.get_watermark_offsets(TopicPartition(f"{name}.scored", i), timeout=10) for i in range(lanes)]
        except KafkaException:  # it has not heard of the new partitions yet
            return False
        return all(high > 0 for _, high in ends)

    with running(pipeline):
        workers = [pipeline.start(f"w{i}") for i in range(3)]
        for worker in workers:
            worker.wait_ready()
        feeding = threading.Thread(target=feed)
        feeding.start()
        try:
            for grown in (6, 12):
                for i, worker in enumerate(workers):
                    assert worker.drain() == 0, worker.tail()
                    workers[i] = pipeline.start(worker.id)
                    workers[i].wait_ready()
                done = pipeline.run("topics", "apply", "--grow", str(grown))
                assert done.returncode == 0, done.stderr
                partitions = grown
                began = time.monotonic()
                wait_for(lambda n=grown: answered(n), LANES_WITHIN, "answers of all lanes")  # type: ignore[misc]
                print(f"{grown} partitions: all lanes answered {time.monotonic() - began:.1f} s after the growth")
        finally:
            ended.set()
            feeding.join()
        settlement = Settlement(kafka.bootstrap, name, pipeline.inputs, pipeline.delays, partitions=12)
        settlement.wait_final(pipeline.published)
        shown = pipeline.run("topics", "show")
        assert shown.returncode == 0, shown.stdout
        for worker in workers:
            assert worker.process.poll() is None, worker.tail()
        verdict = settlement.verdict()
        settlement.close()
        reader.close()
    print(verdict.counts)
    assert not verdict.broken, str(verdict)
