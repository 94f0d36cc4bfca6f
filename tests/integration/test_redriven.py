"""Dead letters on a real Kafka: of recreated topics, and sent back to an input topic by other tools."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaClient
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient

from failsoft.schemas.attempt import Attempt
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.letter_id import LetterId
from failsoft.schemas.record import Header, Origin
from failsoft.topics.names import Names
from failsoft.workers.kafka.topic_ids import topic_ids
from tests.integration.pipeline import Pipeline, body, running
from tests.integration.verifier import Settlement
from tests.kafka import Broker, create_topic, produce, read_all, wait_for

PARTITIONS = 2
INVALID = json.dumps({"id": "incomplete", "at": "2018-10-30T18:00:00Z", "features": {}}).encode()
"""An event without the feature that the card requires."""


@pytest.fixture
def pipeline(kafka: Broker, name: str, tmp_path: Path) -> Pipeline:
    """A pipeline whose retries take a second."""
    return Pipeline(tmp_path, kafka.bootstrap, name, partitions=PARTITIONS, delays=("1s",))


def _read(pipeline: Pipeline, topic: str, least: int = 0) -> list[Message]:
    return read_all(pipeline.bootstrap, topic, until=lambda found: len(found) >= least)


def _replay(pipeline: Pipeline) -> tuple[int, int, int]:
    """Replays everything: how many letters there are, how many were replayed before, how many now."""
    done = pipeline.run("dead", "replay", "--json")
    assert done.returncode == 0, done.stderr.decode()
    counts = json.loads(done.stdout)
    return counts["matched"], counts["already_replayed"], counts["replayed"]


# --- recreated topics -------------------------------------------------------------------------------------------------


def _letter(name: str, offset: int, replays: int = 0) -> tuple[bytes, bytes, Sequence[Header], int]:
    origin = Origin(f"{name}.events", offset % PARTITIONS, offset, 1_700_000_000_000)
    died = Attempt(1, origin, 1_700_000_001_000, Failure(Kind.INVALID, "why"), "test", 1, 0, replays=replays)
    return b"k", body(offset), died.dead_headers(name), offset % PARTITIONS


def _recreate(bootstrap: str, topic: str) -> None:
    """Deletes a topic and makes it anew."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.delete_topics([topic])[topic].result(30)
    wait_for(lambda: topic not in admin.list_topics(timeout=10).topics, 30, f"{topic} to be gone")
    create_topic(bootstrap, topic, PARTITIONS)


async def _id(bootstrap: str, topic: str) -> str | None:
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        assert await topic_ids(client, ["no-such-topic"]) == {}
        return (await topic_ids(client, [topic]))[topic]
    finally:
        await client.close()


async def test_letters_of_recreated_topics_are_replayed_once_each(kafka: Broker, pipeline: Pipeline) -> None:
    """Letters with the origins, and even the times, of replayed ones: the input topic was deleted and filled anew.

    Then the dead topic is made anew: its first letter has the place of one that was replayed, and another topic id.
    """
    names, name = Names(pipeline.name), pipeline.name
    for topic in (names.dead, names.replay):
        create_topic(kafka.bootstrap, topic, PARTITIONS)
    letters = [_letter(name, n) for n in range(20)]
    produce(kafka.bootstrap, names.dead, letters)
    assert _replay(pipeline) == (20, 0, 20)
    produce(kafka.bootstrap, names.dead, letters)
    assert _replay(pipeline) == (40, 20, 20)
    assert _replay(pipeline) == (40, 40, 0)
    listed = [json.loads(line) for line in pipeline.run("dead", "list").stdout.splitlines()]
    assert [(row["count"], row["replayed"]) for row in listed] == [(40, 40)]
    before = await _id(kafka.bootstrap, names.dead)
    named = Counter(dict(m.headers() or [])["failsoft-letter"] for m in _read(pipeline, names.replay, 40))
    assert named == Counter(str(LetterId(before, p, n)).encode() for p in range(PARTITIONS) for n in range(20))

    _recreate(kafka.bootstrap, names.dead)
    assert before != await _id(kafka.bootstrap, names.dead)
    produce(kafka.bootstrap, names.dead, letters[:1])
    assert _replay(pipeline) == (1, 0, 1)


def test_replays_of_an_earlier_version_are_known_by_origin(kafka: Broker, pipeline: Pipeline) -> None:
    """They name no letter, and stand for the letters of their origin that were written before them."""
    names, name = Names(pipeline.name), pipeline.name
    for topic in (names.dead, names.replay):
        create_topic(kafka.bootstrap, topic, PARTITIONS)
    produce(kafka.bootstrap, names.dead, [_letter(name, n) for n in range(4)])
    for n in range(2):
        key, value, headers, partition = _letter(name, n, replays=1)
        plain = [header for header in headers if not header[0].startswith("__dlq")]
        produce(kafka.bootstrap, names.replay, [(key, value, plain, partition)])
    assert _replay(pipeline) == (4, 2, 2)


# --- letters that other tools send back -------------------------------------------------------------------------------


class Story:
    """One worker whose primary fails while the switch is on, and the records that a tool sends to its input topic."""

    def __init__(self, pipeline: Pipeline, settlement: Settlement) -> None:
        self.settlement = settlement
        self.pipeline, self.names = pipeline, Names(pipeline.name)
        pipeline.switch.touch()
        pipeline.start(switched=True)

    def answers(self, least: int) -> list[tuple[str, int, str, int]]:
        """(event id, revision, source, partition) of each answer, in the order of their revisions."""
        found = []
        for m in _read(self.pipeline, self.names.scored, least):
            a: dict[str, Any] = json.loads(m.value() or b"")
            assert m.partition() == a["origin"]["partition"], "an answer is on its event's partition"
            found.append((a["event_id"], a["revision"], a["source"], m.partition()))
        return sorted(found)

    def letters(self, least: int) -> list[Message]:
        return sorted(_read(self.pipeline, self.names.dead, least), key=lambda m: m.timestamp())

    def send(self, letter: Message, partition: int, value: bytes | None = None, **headers: bytes | None) -> None:
        """A tool sends ``letter`` to the topic that it names, maybe with another value; ``headers`` replace some (by
        name, with _ for - and .), and None drops one.
        """
        sent: list[Header] = []
        for name, old in letter.headers() or []:
            new = headers.get(name.replace("-", "_").replace(".", "_").strip("_"), old)
            if new is not None:
                sent.append((name, new))
        topic = dict(letter.headers() or [])["__dlq.errors.topic"].decode()
        produce(self.pipeline.bootstrap, topic, [(letter.key(), value or letter.value(), sent, partition)])


@pytest.fixture
def story(pipeline: Pipeline) -> Iterator[Story]:
    """The pipeline with its topics and a worker."""
    with running(pipeline) as settlement:
        yield Story(pipeline, settlement)


def test_a_letter_that_comes_back_is_a_replay(story: Story) -> None:
    """It is answered with its next revision and the origin of its event, once, also from another partition; and what
    only looks like a letter is answered as an event, with revision 0.
    """
    pipeline, names = story.pipeline, story.names
    own: list[Header] = [("own", b"\xff"), ("own", b"2")]
    pipeline.publish([(b"k1", body(1), own, 0), (b"k2", body(2), [], 1), (b"bad", INVALID, own, 0)])
    letters = {m.key(): m for m in story.letters(3)}
    provisional = [("e1", 0, "static", 0), ("e1", 1, "static", 0), ("e2", 0, "static", 1), ("e2", 1, "static", 1)]
    assert story.answers(4) == provisional

    # 1. The primary still fails: the letter dies again, and is a new letter.
    story.send(letters[b"k2"], partition=1)
    again = story.letters(4)[-1]
    headers = dict(again.headers() or [])
    assert again.value() == body(2) and headers["failsoft-replays"] == b"1"
    assert headers["failsoft-letter"].endswith(b"/1:0") and headers["failsoft-replay-id"].startswith(b"redriven-1-")
    assert story.answers(4) == provisional

    # 2. The primary is mended. One letter goes to another partition; one is sent with a mended value, for its first
    #    answer.
    pipeline.switch.unlink()
    story.send(letters[b"k1"], partition=1)
    story.send(again, partition=1)
    story.send(letters[b"bad"], partition=0, value=INVALID.replace(b"{}", b'{"x": 0.5}'))
    mended = [("e1", 2, "primary", 0), ("e2", 2, "primary", 1), ("incomplete", 0, "primary", 0)]
    assert story.answers(7) == sorted([*provisional, *mended])
    replays = _read(pipeline, names.replay, 4)
    for m in replays:
        kept = [h for h in m.headers() or [] if not h[0].startswith("failsoft-")]
        assert kept == (own if m.partition() == 0 else [])

    # 3. Each letter is replayed once, whoever does it.
    story.send(letters[b"k1"], partition=1)
    story.send(letters[b"k1"], partition=0)
    assert _replay(pipeline) == (4, 4, 0)

    # 4. What is no letter of this pipeline is an event: partial headers, another pipeline's, and a forged revision.
    story.send(letters[b"k1"], 0, body(10), failsoft_attempt=None)
    story.send(letters[b"k1"], 0, body(11), dlq_errors_group=b"another")
    story.send(letters[b"k1"], 0, body(12), failsoft_next_revision=b"9")
    story.send(letters[b"k1"], 0, body(13), failsoft_origin_offset=b"999", dlq_errors_offset=b"999")
    events = [(f"e{i}", 0, "primary", 0) for i in range(10, 14)]
    assert story.answers(11) == sorted([*provisional, *mended, *events])
    assert len(_read(pipeline, names.replay)) == 4 and len(story.letters(4)) == 4

    # 5. The other order: `dead replay` first, then the tool.
    pipeline.publish([(b"late", INVALID.replace(b"incomplete", b"late"), [], 0)])
    late = story.letters(5)[-1]
    assert _replay(pipeline) == (5, 4, 1)
    story.letters(6)
    story.send(late, partition=0)
    pipeline.publish([(b"last", body(14), [], 0)])
    assert ("e14", 0, "primary", 0) in story.answers(12) and len(_read(pipeline, names.replay)) == 5

    verdict = story.settlement.verdict()
    assert not verdict.broken, str(verdict)
    assert verdict.counts == {"replayed: primary": 3, "replayed: dead": 1, "redriven": 7, "primary": 5}
