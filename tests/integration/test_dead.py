"""Dead letters on a real Kafka: list and show, and replay, which replays each one once.

That holds when a replay is killed, repeated, or run twice at the same time.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message

from failsoft.schemas.attempt import Attempt, parse
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.record import Header, Origin
from failsoft.topics.names import Names
from tests.integration.pipeline import ROOT, Pipeline
from tests.integration.reader import watermarks
from tests.kafka import Broker, create_topic, produce, read_all, wait_for

PARTITIONS = 3
KINDS = [Kind.TIMEOUT, Kind.INVALID, Kind.MODEL_ERROR]
Dead = tuple[bytes | None, bytes | None, Sequence[Header], int | None]


@pytest.fixture
def pipeline(kafka: Broker, name: str, tmp_path: Path) -> Pipeline:
    """A pipeline without workers; each test fills its dead and replay topics."""
    made = Pipeline(tmp_path, kafka.bootstrap, name, partitions=PARTITIONS)
    for topic in (Names(name).dead, Names(name).replay):
        create_topic(kafka.bootstrap, topic, PARTITIONS)
    return made


def _dead(n: int, name: str, own: Sequence[Header] = (), **changes: Any) -> Dead:
    """The n-th dead letter, on partition n % P as its event was."""
    partition = n % PARTITIONS
    given: dict[str, Any] = {
        "number": 3,
        "origin": Origin(f"{name}.events", partition, n, 1_700_000_000_000),
        "first_failed_ms": 1_700_000_001_000,
        "failure": Failure(KINDS[n % len(KINDS)], f"failed for reason {n}"),
        "model": "test",
        "version": 1 + n % 2,
        "next_revision": 2,
    }
    attempt = Attempt(**given | changes)
    value = json.dumps({"id": f"e{n}", "features": {"x": n}}).encode()
    return b"k%d" % n, value, [*own, *attempt.dead_headers(name)], partition


def _replayed(pipeline: Pipeline, least: int = 0) -> list[Message]:
    """The records on the replay topic. Waits for ``least``: a commit returns before its records can be read."""
    return read_all(pipeline.bootstrap, Names(pipeline.name).replay, until=lambda found: len(found) >= least)


def _origins(records: Sequence[Message]) -> Counter[tuple[int, int]]:
    """The number of replayed records, by (offset of the origin, replays)."""
    found = [_attempt(r) for r in records]
    return Counter((a.origin.offset, a.replays) for a in found)


def _attempt(record: Message) -> Attempt:
    attempt = parse(list(record.headers() or []))  # type: ignore[arg-type]
    assert isinstance(attempt, Attempt), attempt
    return attempt


def _replay(pipeline: Pipeline, *options: str) -> dict[str, Any]:
    done = pipeline.run("dead", "replay", *options)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _start(pipeline: Pipeline, *options: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "failsoft.workers.cli",
        "dead",
        "replay",
        "--pipeline",
        str(pipeline.file),
        *options,
    ]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("FAILSOFT_")}
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_replay_is_the_event_untouched_with_a_new_history(kafka: Broker, pipeline: Pipeline) -> None:
    """A replay keeps partition, key, value and own headers byte for byte. It has attempt 0 and no due time; ``replays``
    is one higher, and the replay's id is set.

    The cases include a tombstone, values that are not UTF-8, and duplicate headers.
    """
    name = pipeline.name
    own: list[Any] = [("a", b"1"), ("a", b"\xff\x00"), ("empty", b""), ("null", None), ("traceparent", b"00-a-b-01")]
    key, value, headers, partition = _dead(1, name, own, replays=2, replay_id="before")
    tombstone = _dead(2, name, own)
    sent: list[Dead] = [(key, value, headers, partition), (tombstone[0], None, *tombstone[2:]), _dead(3, name)]
    keyless = (None, b"\xff not json", _dead(4, name, own)[2], 1)
    produce(kafka.bootstrap, Names(name).dead, [*sent, keyless])

    assert _replay(pipeline, "--replay-id", "today")["replayed"] == 4

    found = {_attempt(r).origin.offset: r for r in _replayed(pipeline, 4)}
    for n, (key, value, _, partition) in zip([1, 2, 3, 4], [*sent, keyless], strict=True):
        record, attempt = found[n], _attempt(found[n])
        assert (record.key(), record.value(), record.partition()) == (key, value, partition)
        kept = [h for h in record.headers() or [] if not h[0].startswith("failsoft-")]
        assert kept == (own if n != 3 else [])
        assert (attempt.number, attempt.due_ms, attempt.replay_id) == (0, None, "today")
        assert attempt.replays == (3 if n == 1 else 1)
        assert attempt.failure == Failure(KINDS[n % 3], f"failed for reason {n}")


def test_the_second_time_there_is_nothing_to_do(kafka: Broker, pipeline: Pipeline) -> None:
    """A replayed dead letter is not replayed again under other filters or ids; a dry run changes nothing.

    A dead letter of an event that failed again after its replay is a new one.
    """
    name, dead = pipeline.name, Names(pipeline.name).dead
    produce(kafka.bootstrap, dead, [_dead(n, name) for n in range(30)])

    dry = _replay(pipeline, "--dry-run")
    assert (dry["matched"], dry["would_replay"]) == (30, 30) and not _replayed(pipeline)
    some = _replay(pipeline, "--kind", "timeout", "--version", "1")
    assert some["replayed"] == some["matched"] == 5
    few = _replay(pipeline, "--kind", "timeout", "--limit", "2")
    assert few["replayed"] == 2
    rest = _replay(pipeline, "--replay-id", "another")
    assert (rest["matched"], rest["already_replayed"], rest["replayed"]) == (30, 7, 23)
    assert _replay(pipeline)["replayed"] == 0
    assert _origins(_replayed(pipeline, 30)) == Counter((n, 1) for n in range(30))

    produce(kafka.bootstrap, dead, [_dead(7, name, replays=1, replay_id="another")])
    again = _replay(pipeline)
    assert (again["matched"], again["replayed"]) == (31, 1)
    assert _origins(_replayed(pipeline, 31))[7, 2] == 1


def test_a_replay_that_is_killed_goes_on_and_doubles_nothing(kafka: Broker, pipeline: Pipeline) -> None:
    """After three kill -9 in the middle of a replay, the same command replays the rest and each letter once."""
    n = 20_000
    produce(kafka.bootstrap, Names(pipeline.name).dead, [_dead(i, pipeline.name) for i in range(n)])
    for _ in range(3):
        least = _written(pipeline) + 100
        process = _start(pipeline, "--rate", "400/s")
        try:
            wait_for(lambda least=least: _written(pipeline) >= least, 60, f"{least} offsets")  # type: ignore[misc]
        finally:
            process.kill()
            process.communicate()
    before = len(_replayed(pipeline))
    assert 0 < before < n, "the replay was not killed in the middle"

    done = _replay(pipeline)
    # The last commit may have succeeded after the process was killed.
    assert done["already_replayed"] >= before
    assert (done["matched"], done["replayed"]) == (n, n - done["already_replayed"])
    assert _origins(_replayed(pipeline, n)) == Counter((i, 1) for i in range(n))


def _written(pipeline: Pipeline) -> int:
    """Offsets of the replay topic: records and transaction markers. Cheaper than reading while a replay runs."""
    consumer = Consumer({"bootstrap.servers": pipeline.bootstrap, "group.id": "watermarks"})
    try:
        topic = Names(pipeline.name).replay
        return sum(watermarks(consumer, topic, p)[1] for p in range(PARTITIONS))
    finally:
        consumer.close()


def test_of_two_replays_one_takes_over(kafka: Broker, pipeline: Pipeline) -> None:
    """A second replay fences the first, which reports it and exits 1. A dry run fences none. Each letter is replayed
    once.
    """
    n = 5_000
    produce(kafka.bootstrap, Names(pipeline.name).dead, [_dead(i, pipeline.name) for i in range(n)])
    first = _start(pipeline, "--rate", "50/s")
    try:
        wait_for(lambda: _written(pipeline) >= 20, 60, "the first to replay")
        assert _replay(pipeline, "--dry-run")["matched"] == n
        assert first.poll() is None
        second = _replay(pipeline)
        _, stderr = first.communicate(timeout=40)
    finally:
        first.kill()
    assert first.returncode == 1 and b"took over" in stderr and b"Traceback" not in stderr, stderr.decode()
    assert second["replayed"] == n - second["already_replayed"] > 0
    assert _origins(_replayed(pipeline, n)) == Counter((i, 1) for i in range(n))


def test_an_interrupted_replay_says_how_far_it_came(kafka: Broker, pipeline: Pipeline) -> None:
    """An interrupted replay exits 130, and the number that it reports is the number committed."""
    produce(kafka.bootstrap, Names(pipeline.name).dead, [_dead(i, pipeline.name) for i in range(5_000)])
    process = _start(pipeline, "--rate", "50/s")
    try:
        wait_for(lambda: _written(pipeline) >= 20, 60, "some to be replayed")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == 130
    reported = re.search(r" (\d+) replayed;", stderr.decode())
    assert reported and len(_replayed(pipeline, int(reported[1]))) == int(reported[1]), stderr.decode()


def test_what_no_worker_wrote_is_counted_and_left(kafka: Broker, pipeline: Pipeline) -> None:
    """A dead letter that no worker wrote is counted and left; the others are replayed, and the exit code is 1."""
    dead = Names(pipeline.name).dead
    strange = (b"k", b"{}", [("failsoft-attempt", b"many")], 0)
    produce(kafka.bootstrap, dead, [_dead(0, pipeline.name), strange])
    done = pipeline.run("dead", "replay")
    assert done.returncode == 1 and b"1 dead letters cannot be replayed" in done.stderr
    found = json.loads(done.stdout)
    assert (found["replayed"], found["unreadable"]) == (1, 1)
    assert _origins(_replayed(pipeline, 1)) == Counter({(0, 1): 1})


def test_list_groups_and_show_shows(kafka: Broker, pipeline: Pipeline) -> None:
    """list counts by kind, model and version, with the number replayed. show finds one by id, origin or place."""
    name, dead = pipeline.name, Names(pipeline.name).dead
    produce(kafka.bootstrap, dead, [_dead(n, name, [("a", b"\xff")]) for n in range(12)])
    _replay(pipeline, "--event", "e0")

    listed = [json.loads(line) for line in pipeline.run("dead", "list").stdout.splitlines()]
    assert sum(row["count"] for row in listed) == 12
    assert {(row["kind"], row["version"]): (row["count"], row["replayed"]) for row in listed} == {
        (KINDS[k], v): (2, int((k, v) == (0, 1))) for k in range(3) for v in (1, 2)
    }

    shown = [json.loads(pipeline.run("dead", "show", which).stdout) for which in ("e0", f"{name}.events-0-0", "0:0")]
    assert shown[0] == shown[1] == shown[2]
    assert shown[0]["value"] == {"json": {"id": "e0", "features": {"x": 0}}}
    assert (shown[0]["message"], shown[0]["replayed"]) == ("failed for reason 0", True)
    assert shown[0]["headers"] == [{"name": "a", "hex": "ff"}]

    for which in ("nobody", "0:999", "99:0"):
        done = pipeline.run("dead", "show", which)
        assert done.returncode == 1 and f"no dead letter {which}".encode() in done.stderr


def test_a_pipeline_without_topics_is_told_to_apply_them(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Without topics, replay exits 1 and names the command that creates them."""
    done = Pipeline(tmp_path, kafka.bootstrap, name).run("dead", "replay")
    assert done.returncode == 1 and b"failsoft topics apply" in done.stderr
