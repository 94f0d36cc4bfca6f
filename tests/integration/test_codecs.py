"""Topics of every codec: written so by producers, or recompressed by the broker, the pipeline's own topics too."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from tests.integration.pipeline import Pipeline, events, running
from tests.kafka import Broker, read_all

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")

OWN = ("scored", "retry.1s", "retry.2s", "dead", "replay", "outcomes", "control", "alerts")
CHANGELOGS = ("breakers-changelog", "rollouts-changelog")


def _recompress(bootstrap: str, topics: dict[str, str]) -> None:
    """Sets ``compression.type`` of each topic: its broker then writes every batch with that codec."""
    kind, set_ = ConfigResource.Type.TOPIC, AlterConfigOpType.SET
    wanted = [
        ConfigResource(
            kind, topic, incremental_configs=[ConfigEntry("compression.type", codec, incremental_operation=set_)]
        )
        for topic, codec in topics.items()
    ]
    admin = AdminClient({"bootstrap.servers": bootstrap})  # kept: without it the requests end
    for done in admin.incremental_alter_configs(wanted).values():
        done.result(30)


def _publish(pipeline: Pipeline, codec: str, n: int, start: int) -> None:
    """Batches of librdkafka. The broker keeps them as they are: the input's ``compression.type`` is ``producer``."""
    producer = Producer({"bootstrap.servers": pipeline.bootstrap, "compression.type": codec, "linger.ms": 50})
    for key, value, headers, _ in events(n, start, bad_every=10):
        producer.produce(pipeline.inputs[0], value, key, headers=list(headers))
    assert producer.flush(30) == 0
    pipeline.published += n


def test_topics_of_every_codec_are_read_and_written(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Events of five producers, own topics of four codecs (by Java's writers): everything is answered once, and
    commands and the breakers' table read them too.
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, delays=("1s", "2s"), partitions=2)
    with running(pipeline) as settlement:
        turned = itertools.cycle(CODECS[1:])
        topics = [*(f"{name}.{t}" for t in OWN), *(f"{name}-{t}" for t in CHANGELOGS)]
        _recompress(kafka.bootstrap, dict(zip(topics, turned, strict=False)))
        shown = pipeline.run("topics", "show")
        assert shown.returncode == 0, shown.stderr
        for number, codec in enumerate(CODECS):
            _publish(pipeline, codec, 40, 40 * number)
        worker = pipeline.start()
        worker.wait_ready()
        settlement.wait_final(200)
        breakers = pipeline.run("breakers", "--json")
        assert breakers.returncode == 0 and b"test@1" in breakers.stdout, breakers
        dead = pipeline.run("dead", "list", "--json")
        assert sum(json.loads(line)["count"] for line in dead.stdout.splitlines()) == 20, dead
        tail = pipeline.run("tail", "--from", "beginning", "--limit", "3", "--json")
        assert len(tail.stdout.splitlines()) == 3, tail
        replayed = pipeline.run("dead", "replay")
        assert replayed.returncode == 0, replayed
        dead_twice = read_all(kafka.bootstrap, f"{name}.dead", until=lambda found: len(found) >= 40)
        assert len(dead_twice) == 40
        assert worker.drain() == 0, worker.tail()
        verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
