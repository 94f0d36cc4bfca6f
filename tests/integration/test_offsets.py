"""Offsets that expire, are reset or deleted: a lane never answers twice or skips in silence, and orders settle it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.integration.pipeline import Pipeline, Worker, events, running
from tests.kafka import Broker, read_all, wait_for


class Operator:
    """Kafka's tools and failsoft's commands, on one pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.admin = AdminClient({"bootstrap.servers": pipeline.bootstrap, "log_level": 2})
        self.topic = pipeline.inputs[0]

    def offsets(self, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
        """The exit code, the rows and the messages of ``failsoft offsets``."""
        done = self.pipeline.run("offsets", *arguments)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()

    def states(self) -> dict[tuple[str, int], str]:
        """The partitions that are not ok, with their states."""
        code, rows, _ = self.offsets("show", "--json")
        found = {(r["topic"], r["partition"]): r["state"] for r in rows if r["state"] != "ok"}
        assert code == (1 if set(found.values()) - {"new", "rewinding"} else 0)
        return found

    def expire(self) -> None:
        """Delete all offsets of the group, when its members are gone."""

        def gone() -> bool:
            try:
                self.admin.delete_consumer_groups([self.pipeline.name])[self.pipeline.name].result(10)
            except KafkaException:
                return False
            return True

        wait_for(gone, 30, "the end of the members' session")

    def reset(self, offsets: dict[tuple[str, int], int]) -> None:
        """kafka-consumer-groups --reset-offsets, when the members are gone."""
        tps = [TopicPartition(topic, p, at) for (topic, p), at in offsets.items()]

        def done() -> bool:
            asked = self.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(self.pipeline.name, tps)])
            try:
                return all(tp.error is None for tp in asked[self.pipeline.name].result(10).topic_partitions)
            except KafkaException:
                return False

        wait_for(done, 30, "the end of the members' session")

    def delete(self, partition: int, before: int) -> None:
        """Delete the records of the input before an offset, as retention does."""
        tp = TopicPartition(self.topic, partition, before)
        for result in self.admin.delete_records([tp]).values():
            result.result(10)


def stops(worker: Worker) -> dict[int, str]:
    """The causes of the lanes that the worker said were stopped, by lane."""
    said = [json.loads(line) for line in worker._said().splitlines() if line.startswith("{")]
    return {line["lane"]: line["cause"] for line in said if line["event"] == "a lane is stopped"}


def answers(pipeline: Pipeline) -> list[dict[str, Any]]:
    return [json.loads(m.value() or b"") for m in read_all(pipeline.bootstrap, f"{pipeline.name}.scored")]


def test_offsets_are_not_the_only_memory(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Expired, reset and deleted: each lane stops alone and says so; repair, skip and rewind settle it, on record."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, delays=("1s",))
    with running(pipeline) as settlement:
        operator = Operator(pipeline)
        topic, rung = operator.topic, f"{name}.retry.1s"
        worker = pipeline.start()
        pipeline.publish(events(200, bad_every=10))
        settlement.wait_final(200)
        assert worker.drain() == 0, worker.tail()
        assert operator.states() == {}
        before = len(answers(pipeline))

        # Lane 0: expired. Lanes 1 and 3: reset, one of them on its rung. Lane 2: deleted before it was read.
        pipeline.publish([(k, v, h, 2) for k, v, h, _ in events(30, start=2000)])
        rows = operator.offsets("show", "--json")[1]
        committed = {(r["topic"], r["partition"]): r["committed"] for r in rows if r["committed"] and r["partition"]}
        operator.expire()
        operator.reset(committed | {(topic, 1): 0, (rung, 3): 0})
        unread = committed[topic, 2]
        operator.delete(2, unread + 10)
        worker = pipeline.start()
        wait_for(lambda: len(stops(worker)) == 4, 60, "all lanes to stop")
        assert stops(worker) == {0: "offsets_missing", 1: "offsets_behind", 2: "out_of_range", 3: "offsets_behind"}
        wrong = {place: state for place, state in operator.states().items() if state != "new"}
        assert wrong == {
            (topic, 0): "missing",
            (rung, 0): "missing",
            (topic, 1): "behind",
            (topic, 2): "deleted",
            (rung, 3): "behind",
        }

        # Each is settled by itself, without a restart: first one lane, and it goes on alone.
        code, [moved], said = operator.offsets("repair", "--topic", f"{rung}:3")
        assert (code, moved["to"]) == (0, committed[rung, 3]), said
        pipeline.publish([(k, v, h, 3) for k, v, h, _ in events(10, start=3000)])
        settlement.wait_answered(210)
        code, _, said = operator.offsets("rewind", "--topic", f"{topic}:3", "--to", "0", "--again")
        assert code == 1 and "stop the pipeline's workers first" in said
        code, moved, said = operator.offsets("repair", "--all", "--who", "ann", "--why", "back from holidays")
        assert code == 0 and {(m["topic"], m["partition"]) for m in moved} == {(topic, 0), (rung, 0), (topic, 1)}, said
        code, [lost], said = operator.offsets("skip", "--topic", f"{topic}:2")
        assert (code, lost["lost"], lost["lost_from"]) == (0, 10, unread), said
        pipeline.publish([(k, v, h, i % 2) for i, (k, v, h, _) in enumerate(events(20, start=4000))])
        settlement.wait_answered(200 + 10 + 20 + 20)
        assert worker.drain() == 0, worker.tail()
        assert len(answers(pipeline)) == before + 10 + 20 + 20
        alerts = [json.loads(m.value() or b"") for m in read_all(kafka.bootstrap, f"{name}.alerts")]
        [gone] = [a for a in alerts if a["name"] == "lost"]
        assert (gone["key"], gone["first_offset"], gone["end_offset"]) == (f"{topic}-2", unread, unread + 10)

        # Rewound on purpose: the answers are marked, and the permission ends with the range.
        found = answers(pipeline)
        answered = {a["origin"]["offset"] for a in found if a["origin"]["partition"] == 0}
        code, _, said = operator.offsets("rewind", "--topic", f"{topic}:0", "--to", "5")
        assert code == 2 and "--again" in said
        code, [back], said = operator.offsets(
            "rewind", "--topic", f"{topic}:0", "--to", "5", "--again", "--who", "bob", "--why", "wrong rates"
        )
        assert code == 0 and back["to"] == 5, said
        assert operator.states()[topic, 0] == "rewinding"
        worker = pipeline.start()
        again = [a for a in found if a["origin"]["partition"] == 0 and a["origin"]["offset"] >= 5]
        want = len(answered - set(range(5)))
        wait_for(lambda: sum(bool(a.get("rewind")) for a in answers(pipeline)) >= len(again), 60, "the answers again")
        pipeline.publish([(k, v, h, 0) for k, v, h, _ in events(10, start=5000)])
        settlement.wait_answered(260 + want)
        wait_for(lambda: not operator.states().get((topic, 0)), 30, "the rewind to be over")
        assert worker.drain() == 0, worker.tail()
        found = answers(pipeline)
        marked = [a for a in found if a.get("rewind") == back["rewind"]]
        assert {a["origin"]["offset"] for a in marked} == answered - set(range(5))
        assert Counter(a["revision"] for a in marked) == Counter(a["revision"] for a in again)  # corrections too
        others = Counter((str(a["origin"]), a["revision"]) for a in found if not a.get("rewind"))
        assert set(others.values()) == {1} and len([place for place, revision in others if revision == 0]) == 260
        code, orders, _ = operator.offsets("history")
        assert [(o["what"], o["who"]) for o in orders if o["who"] in ("ann", "bob")] == [("offsets", "ann")] * 3 + [
            ("offsets", "bob")
        ]
        assert "wrong rates" in orders[-1]["why"]
