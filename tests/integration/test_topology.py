"""Topics that grow, come, go and are made anew while workers run: nothing is lost, nothing twice, no worker ends."""

from __future__ import annotations

import json
import time
from pathlib import Path

from confluent_kafka import Message
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from tests.integration.pipeline import Event, Pipeline, Worker, body, events, running
from tests.integration.verifier import Settlement
from tests.kafka import Broker, create_topic, produce, read_all, wait_for

NOTICED_WITHIN = 30.0
"""Seconds in which new partitions must be read."""


def _spread(n: int, start: int, partitions: int, bad_every: int = 0) -> list[Event]:
    """``n`` events, the same number on each partition."""
    return [(k, v, h, i % partitions) for i, (k, v, h, _) in enumerate(events(n, start, bad_every))]


def _restarted(pipeline: Pipeline, worker: Worker) -> Worker:
    """The next process with the same id, within the session: a rolling restart."""
    assert worker.drain() == 0, worker.tail()
    again = pipeline.start(worker.id)
    again.wait_ready()
    return again


def _running(*workers: Worker) -> None:
    for worker in workers:
        assert worker.process.poll() is None, worker.tail()


def test_an_input_that_grows_alone_and_is_then_made_anew(kafka: Broker, name: str, tmp_path: Path) -> None:
    """New lanes are stopped until the pipeline's own topics have grown. A topic that is made anew is known by its id:
    at the old offset of a topic with the same name, the records before it would be skipped in silence.
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=1)
    (events_topic,) = pipeline.inputs
    with running(pipeline):
        worker = pipeline.start("w0")
        worker.wait_ready()
        # 1. The input grows alone, by another tool.
        _grow(kafka, events_topic, 2)
        pipeline.publish(_spread(40, 0, 2))
        wait_for(lambda: '"cause": "partitions_missing"' in worker.log.read_text(), NOTICED_WITHIN, "the new lane")
        _answered(pipeline, {f"e{i}" for i in range(0, 40, 2)})
        shown = pipeline.run("topics", "show", "--json")
        assert shown.returncode == 1 and b"failsoft topics apply --grow 2" in shown.stdout, shown
        refused = pipeline.run("topics", "apply")
        assert refused.returncode == 1 and b"--grow 2" in refused.stderr, refused
        assert pipeline.run("topics", "apply", "--grow", "1").returncode == 1, "partitions cannot be taken away"
        assert worker.drain() == 0
        worker = pipeline.start("w0")  # a worker starts although one of its lanes cannot run
        worker.wait_ready()
        assert pipeline.run("topics", "apply", "--grow", "2").returncode == 0
        settlement = Settlement(kafka.bootstrap, name, pipeline.inputs, pipeline.delays, partitions=2)
        settlement.wait_answered(40, NOTICED_WITHIN)
        verdict = settlement.verdict()
        settlement.close()
        assert not verdict.broken, str(verdict)
        # 2. It is made anew within milliseconds, while the worker runs, and while it is stopped. The last records on
        #    the replay topic are about events of its former life.
        produce(kafka.bootstrap, events_topic, [(b"k", body(900 + i, x=None), (), i % 2) for i in range(4)])
        read_all(kafka.bootstrap, f"{name}.dead", until=lambda records: len(records) == 4)
        assert pipeline.run("dead", "replay").returncode == 0
        read_all(kafka.bootstrap, f"{name}.dead", until=lambda records: len(records) == 8)
        _made_anew(kafka, events_topic, 2)
        pipeline.publish([(b"k", body(1000 + i), (), i % 2) for i in range(200)])
        _answered(pipeline, {f"e{1000 + i}" for i in range(200)})
        assert worker.drain() == 0, worker.tail()
        _made_anew(kafka, events_topic, 2)
        pipeline.publish([(b"k", body(2000 + i), (), i % 2) for i in range(300)])
        worker = pipeline.start("w0")
        _answered(pipeline, {f"e{2000 + i}" for i in range(300)})
        _running(worker)


def test_topologies_change_by_rolling_restarts(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Workers of both topologies live side by side, new partitions are read within 30 s, and what a dropped rung still
    holds is said when nobody reads it.
    """
    more = f"{name}.more"
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=2, delays=("1s", "3s"))
    with running(pipeline):
        create_topic(kafka.bootstrap, more, 2)
        workers = [pipeline.start("w0"), pipeline.start("w1")]
        for worker in workers:
            worker.wait_ready()
        pipeline.publish(_spread(60, 0, 2, bad_every=10))
        # 1. A rung and an input are added; in between, one worker has the old topology and one the new.
        pipeline.delays, pipeline.inputs = ("1s", "2s", "3s"), [*pipeline.inputs, more]
        pipeline.write()
        assert pipeline.run("topics", "apply").returncode == 0
        workers[0] = _restarted(pipeline, workers[0])
        pipeline.publish(_spread(60, 100, 2, bad_every=10))
        pipeline.publish(_spread(60, 200, 2, bad_every=10), more)
        _running(*workers)
        workers[1] = _restarted(pipeline, workers[1])
        _answered(pipeline, {f"e{i}" for start in (0, 100, 200) for i in range(start, start + 60)}, final=True)
        _running(*workers)
        # 2. All topics grow. Static members that have restarted have their lanes back without a rebalance, and Kafka
        #    tells none of them to watch the topics.
        grown = pipeline.run("topics", "apply", "--grow", "3")
        assert grown.returncode == 0 and b"keys move" not in grown.stdout, grown
        assert b"not in order with their key's earlier events" in grown.stderr
        pipeline.publish(_spread(60, 300, 3))
        began = time.monotonic()
        _answered(pipeline, {f"e{i}" for i in range(300, 360)})
        assert time.monotonic() - began < NOTICED_WITHIN
        assert pipeline.run("topics", "show").returncode == 0
        _running(*workers)
        # 3. Both are dropped again, while events wait on a rung. The last worker that reads it ends.
        pipeline.delays = ("1s", "300s")
        pipeline.write()
        assert pipeline.run("topics", "apply").returncode == 0
        workers[1].drain()
        workers[0] = _restarted(pipeline, workers[0])
        pipeline.publish([(b"k", body(i, x=2.0), (), i % 2) for i in range(900, 904)])
        rung = f"{name}.retry.300s"
        read_all(kafka.bootstrap, rung, until=lambda records: len(records) == 4)
        pipeline.delays, pipeline.inputs = ("1s",), pipeline.inputs[:1]
        pipeline.write()
        assert pipeline.run("topics", "apply").returncode == 0, "a worker still reads it"
        workers[0] = _restarted(pipeline, workers[0])
        produce(kafka.bootstrap, more, _spread(3, 950, 2))
        shown = pipeline.run("topics", "show", "--json")
        lines = {row["name"]: row for row in map(json.loads, shown.stdout.splitlines())}
        assert shown.returncode == 1 and lines[rung]["problems"][0].startswith("4 events wait on it, and no worker")
        assert lines[more]["problems"][0].startswith("3 events wait on it, and no worker")
        refused = pipeline.run("topics", "apply")
        assert refused.returncode == 1 and f"{rung}: 4 events wait on it".encode() in refused.stderr
        assert f"{name}.retry.2s: this rung is empty".encode() in shown.stderr
        _running(workers[0])


def _grow(kafka: Broker, topic: str, partitions: int) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(30)


def _made_anew(kafka: Broker, topic: str, partitions: int) -> None:
    """Delete the topic and create it at once, within milliseconds."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.delete_topics([topic])[topic].result(30)

    def created() -> bool:
        try:
            admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)
        except Exception:  # noqa: BLE001 - it is not deleted yet
            return False
        return True

    wait_for(created, 30, f"a new {topic}")


def _answered(pipeline: Pipeline, ids: set[str], final: bool = False) -> None:
    """Waits until each of ``ids`` has exactly one first answer, or one final answer too."""

    def each(records: list[Message], wanted: str, value: object) -> list[str]:
        bodies = [json.loads(record.value() or b"") for record in records]
        return [body["event_id"] for body in bodies if body[wanted] == value and body["event_id"] in ids]

    def done(records: list[Message]) -> bool:
        return set(each(records, "revision", 0)) == ids and (not final or set(each(records, "final", True)) == ids)

    found = read_all(pipeline.bootstrap, f"{pipeline.name}.scored", until=done, timeout=60)
    assert len(each(found, "revision", 0)) == len(ids)
    assert len(each(found, "final", True)) <= len(ids)
