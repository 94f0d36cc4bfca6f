"""The commands kafka, topics, publish and tail on a real Kafka, run as processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer

from failsoft.topics.embedded.broker import free_port
from failsoft.topics.names import Names
from tests.integration.pipeline import ROOT, Pipeline
from tests.integration.reader import watermarks
from tests.isolated_models import ended
from tests.kafka import Broker, create_topic, produce, read_all, wait_for


@pytest.fixture
def pipeline(kafka: Broker, name: str, tmp_path: Path) -> Pipeline:
    """A pipeline whose files exist and whose topics do not."""
    return Pipeline(tmp_path, kafka.bootstrap, name, partitions=3)


def _words(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "failsoft.workers.cli", *arguments]


def _start(*arguments: str, stdin: int | None = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("FAILSOFT_")}
    return subprocess.Popen(
        _words(*arguments), cwd=ROOT, env=environ, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_kafka_runs_until_it_is_told_to_end(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """``kafka`` prints its address, its data directory and the next commands. Ctrl-C gives 130, SIGTERM 0."""
    port = free_port()
    process = _start("kafka", "--port", str(port), "--data", str(tmp_path / "data"))
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().decode().rstrip() for _ in range(7)]
        assert lines[0] == f"Kafka listens on 127.0.0.1:{port}"
        assert lines[1] == f"its data is in {tmp_path / 'data'}"
        assert [text.split()[0] for text in lines[4:]] == ["failsoft"] * 3
        create_topic(f"127.0.0.1:{port}", "one", 1)
        made = subprocess.run(
            _words("init", str(tmp_path / "p")), cwd=ROOT, capture_output=True, timeout=60, check=True
        )
        assert f"the Kafka of failsoft kafka at 127.0.0.1:{port}" in made.stderr.decode()
        java = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        process.communicate(timeout=120)
        assert process.returncode == code
        assert all(map(ended, java))
    finally:
        process.kill()


def test_kafka_on_a_port_that_is_taken_fails_with_a_message(kafka: Broker, tmp_path: Path) -> None:
    """A port in use gives exit code 1 and a message, and no traceback."""
    process = _start("kafka", "--port", kafka.bootstrap.rpartition(":")[2], "--data", str(tmp_path))
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1 and b"is taken" in stderr and b"Traceback" not in stderr


def test_topics_are_created_once_and_then_verified(pipeline: Pipeline) -> None:
    """show exits 1 while a topic is missing and 0 afterwards; apply prints what it created."""
    before = pipeline.run("topics", "show")
    rows = [json.loads(line) for line in before.stdout.splitlines()]
    assert before.returncode == 1 and not any(row["present"] for row in rows)

    first = [json.loads(line) for line in pipeline.run("topics", "apply").stdout.splitlines()]
    second = [json.loads(line) for line in pipeline.run("topics", "apply").stdout.splitlines()]
    assert {row["result"] for row in first} == {"created"} and {row["result"] for row in second} == {"verified"}

    after = pipeline.run("topics", "show")
    rows = [json.loads(line) for line in after.stdout.splitlines()]
    assert after.returncode == 0 and all(row["present"] and not row["problems"] for row in rows)
    assert {row["name"]: row["partitions"] for row in rows}[Names(pipeline.name).scored] == 4


def test_topics_that_would_break_the_promise_are_all_named(kafka: Broker, pipeline: Pipeline) -> None:
    """apply refuses topics that would break the promise: it creates nothing and exits 1. show lists the problems."""
    names = Names(pipeline.name)
    create_topic(kafka.bootstrap, pipeline.inputs[0], 3)
    create_topic(kafka.bootstrap, names.scored, 2)
    create_topic(kafka.bootstrap, names.outcomes, 5)
    done = pipeline.run("topics", "apply")
    assert done.returncode == 1
    assert {line.split(":")[1].strip() for line in done.stderr.decode().splitlines()} == {names.scored, names.outcomes}
    rows = [json.loads(line) for line in pipeline.run("topics", "show").stdout.splitlines()]
    assert {row["name"] for row in rows if row["problems"]} == {names.scored, names.outcomes}
    assert sum(row["present"] for row in rows) == 3


def test_ndjson_arrives_byte_for_byte_where_any_client_would_put_it(kafka: Broker, pipeline: Pipeline) -> None:
    """Every line is published once, malformed ones too, keyed by the event's id and partitioned by Kafka's own hash."""
    topic, twin = pipeline.inputs[0], f"{pipeline.name}.twin"
    for each in (topic, twin):
        create_topic(kafka.bootstrap, each, 3)
    lines = [json.dumps({"id": f"é{n}", "features": {"x": n}}).encode() for n in range(5000)]
    lines[7:7] = [b"not json", b'{"id": "spaced" ,"x":1.0 }']
    file = pipeline.folder / "events.ndjson"
    file.write_bytes(b"\n".join(lines))

    done = pipeline.run("publish", str(file))
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["published"] == len(lines)

    producer = Producer({"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random"})
    for line in lines:
        if line != b"not json":
            producer.produce(twin, line, json.loads(line)["id"].encode())
        producer.poll(0)
    assert producer.flush(30) == 0
    placed = {r.value(): (r.key(), r.partition()) for r in read_all(kafka.bootstrap, topic)}
    expected = {r.value(): (r.key(), r.partition()) for r in read_all(kafka.bootstrap, twin)}
    assert placed.pop(b"not json")[0] is None
    assert placed == expected
    assert len(read_all(kafka.bootstrap, topic)) == len(lines)


def test_csv_from_a_pipe_by_a_rate(kafka: Broker, pipeline: Pipeline) -> None:
    """CSV rows become events of the pipeline's shape. --limit ends the run, and --rate bounds its speed."""
    create_topic(kafka.bootstrap, pipeline.inputs[0], 3)
    began = time.monotonic()
    process = _start(
        *("publish", "-", "--format", "csv", "--rate", "40/s", "--limit", "41", "--key", "colour"),
        *("--pipeline", str(pipeline.file)),
        stdin=subprocess.PIPE,
    )
    rows = "".join(f"{n},2018-10-30 18:00:00,0.5,{'red' if n % 2 else ''}\n" for n in range(100))
    out, err = process.communicate(f"id,timestamp,x,colour\n{rows}".encode(), timeout=120)
    assert process.returncode == 0, err.decode()
    summary = json.loads(out)
    assert summary["published"] == 41
    assert 1.0 <= summary["seconds"] <= time.monotonic() - began  # the 41st is due a second after the first
    records = read_all(kafka.bootstrap, pipeline.inputs[0])
    events = {e["id"]: (r.key(), e) for r in records for e in [json.loads(r.value() or b"")]}
    assert len(events) == 41
    assert events["1"] == (b"red", {"id": "1", "at": "2018-10-30T18:00:00Z", "features": {"x": 0.5, "colour": "red"}})
    assert events["2"] == (None, {"id": "2", "at": "2018-10-30T18:00:00Z", "features": {"x": 0.5}})


def test_an_interrupted_publish_says_how_many_arrived(kafka: Broker, pipeline: Pipeline) -> None:
    """An interrupted publish exits 130, and the number that it reports is the number of records on the broker."""
    create_topic(kafka.bootstrap, pipeline.inputs[0], 3)
    file = pipeline.folder / "events.ndjson"
    file.write_bytes(b"".join(b'{"id":"%d"}\n' % n for n in range(10_000)))
    process = _start("publish", str(file), "--rate", "100/s", "--pipeline", str(pipeline.file))
    try:
        wait_for(lambda: _end(kafka, pipeline.inputs[0]) >= 20, 60, "some events")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == 130
    reported = re.search(r"interrupted: ([\d,]+) events were published", err.decode())
    assert reported and int(reported[1].replace(",", "")) == len(read_all(kafka.bootstrap, pipeline.inputs[0]))


def _end(kafka: Broker, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "watermarks"})
    try:
        return sum(watermarks(consumer, topic, p)[1] for p in range(3))
    finally:
        consumer.close()


def test_a_bad_row_stops_the_rest_and_says_what_was_sent(kafka: Broker, pipeline: Pipeline) -> None:
    """A bad row ends the run with exit code 1; the rows before it are published and counted."""
    create_topic(kafka.bootstrap, pipeline.inputs[0], 3)
    file = pipeline.folder / "events.csv"
    file.write_text("id,x\n1,1\n2,2\n3,3,3\n4,4\n")
    done = pipeline.run("publish", str(file))
    assert done.returncode == 1
    assert b"row 4 has 3 cells" in done.stderr and b"stopped: 2 events were published" in done.stderr
    assert len(read_all(kafka.bootstrap, pipeline.inputs[0])) == 2


def test_an_unknown_topic_is_told_at_once(pipeline: Pipeline) -> None:
    """An unknown topic gives exit code 1 before the client's own timeout."""
    (pipeline.folder / "events.ndjson").write_text("{}\n")
    done = pipeline.run("publish", str(pipeline.folder / "events.ndjson"), "--topic", f"{pipeline.name}.nowhere")
    assert done.returncode == 1 and f"{pipeline.name}.nowhere: no such topic".encode() in done.stderr


def _answer(n: int, source: str) -> bytes:
    return json.dumps({"event_id": f"e{n}", "source": source, "n": n}, separators=(",", ":")).encode()


def test_tail_gives_answers_as_they_stand_in_the_topic(kafka: Broker, pipeline: Pipeline) -> None:
    """tail prints each value byte for byte, from the beginning, filtered by header or by event."""
    scored = Names(pipeline.name).scored
    create_topic(kafka.bootstrap, scored, 3)
    answers = [(n, "static" if n % 3 == 0 else "primary") for n in range(30)]
    produce(
        kafka.bootstrap, scored, [(b"k", _answer(n, s), [("failsoft-source", s.encode())], n % 3) for n, s in answers]
    )
    every = pipeline.run("tail", "--from", "beginning", "--limit", "30").stdout.splitlines()
    assert sorted(every) == sorted(_answer(n, s) for n, s in answers)
    degraded = pipeline.run("tail", "--degraded", "--from", "beginning", "--limit", "10").stdout.splitlines()
    assert sorted(degraded) == sorted(_answer(n, s) for n, s in answers if s == "static")
    one = pipeline.run("tail", "--event", "e17", "--limit", "1")
    assert one.returncode == 0 and one.stdout == _answer(17, "primary") + b"\n"


def test_tail_follows_from_the_end_until_ctrl_c(kafka: Broker, pipeline: Pipeline) -> None:
    """tail without --from skips older answers and prints new ones at once; Ctrl-C gives 130."""
    scored = Names(pipeline.name).scored
    create_topic(kafka.bootstrap, scored, 3)
    produce(kafka.bootstrap, scored, [(b"k", b"old", [], 0)])
    process = _start("tail", "--pipeline", str(pipeline.file))
    try:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)

        def seen() -> bytes | None:
            # tail prints nothing when it is ready, so publish until one record appears
            produce(kafka.bootstrap, scored, [(b"k", b"new", [], 1)])
            assert process.stdout is not None
            return process.stdout.readline() or None

        assert wait_for(seen, 40, "an answer that came after the start") == b"new\n"
        process.send_signal(signal.SIGINT)
        process.wait(40)
    finally:
        process.kill()
    assert process.returncode == 130


def test_a_reader_that_has_enough_ends_tail_in_silence(kafka: Broker, pipeline: Pipeline) -> None:
    """`failsoft tail | head -1` ends without a traceback or any other output on stderr."""
    scored = Names(pipeline.name).scored
    create_topic(kafka.bootstrap, scored, 1)
    produce(kafka.bootstrap, scored, [(b"k", b"x" * 1000, [], 0) for _ in range(2000)])
    process = _start("tail", "--from", "beginning", "--pipeline", str(pipeline.file))
    try:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"x" * 1000 + b"\n"
        process.stdout.close()
        assert process.wait(40) == 0
        assert process.stderr.read() == b""
    finally:
        process.kill()
