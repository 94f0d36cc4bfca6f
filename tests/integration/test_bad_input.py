"""Bad input on a real Kafka: each bad record ends as the contract's table of failure kinds states.
No other record of its batch is affected.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c
from confluent_kafka import Producer

from failsoft.schemas.fleet.breaker import Alert
from tests.integration.pipeline import Pipeline, body, events, running
from tests.integration.reader import Header, Seen
from tests.integration.verifier import Settlement
from tests.kafka import Broker, read_all

PRIMARY, MALFORMED, INVALID = "primary", "dead: malformed", "dead: invalid"
GOOD = {"x": 0.5, "row": 0, "colour": "red"}
STRUCTURED = [("content-type", b"application/cloudevents+json; charset=utf-8")]
FRAMING = b"\0\0\0\0\x2a"
FRAMED_AVRO = FRAMING + b"\x04e1\x06abc"


@dataclass(frozen=True)
class Case:
    """One record and its expected fate.

    Attributes:
        what: a description for the assertion messages.
        value: the record's value.
        fate: the fate that the verifier must find.
        id: the event id of its answer; "*" stands for topic-partition-offset, None is not checked.
        headers: the record's headers.
        key: the record's key.
    """

    what: str
    value: bytes | None
    fate: str
    id: str | None = None
    headers: Sequence[Header] = ()
    key: bytes | None = b"k"


def _event(**changes: object) -> bytes:
    return json.dumps({"id": "i", "at": "2018-10-30T18:00:00Z", "features": GOOD} | changes).encode()


def _features(**changes: object) -> bytes:
    return _event(features=GOOD | changes)


def _cloud(**changes: object) -> bytes:
    whole = {"specversion": "1.0", "id": "c", "time": "2018-10-30T18:00:00Z", "data": {"features": GOOD}} | changes
    return json.dumps({k: v for k, v in whole.items() if v is not None}).encode()


CASES = [
    Case("a tombstone", None, MALFORMED),
    Case("an empty value", b"", MALFORMED),
    Case("bytes that are not UTF-8", b"\xff\xfe\x00{", MALFORMED),
    Case("half a value", b'{"id": "i", "features": {"x": 0.5', MALFORMED),
    Case("text after the value", _event() + b"}", MALFORMED),
    Case("a list", b"[]", MALFORMED),
    Case("a number", b"1", MALFORMED),
    Case("null", b"null", MALFORMED),
    Case("a bomb of lists", b"[" * 90_000, MALFORMED),
    Case("a bomb of objects", b'{"a":' * 15_000 + b"1" + b"}" * 15_000, MALFORMED),
    Case("a deep feature", _features(deep=json.loads("[" * 40 + "]" * 40)), MALFORMED),
    Case("an oversized value", _event(blob="b" * 100_000), MALFORMED),
    Case("a NaN literal", _features(x=float("nan")), MALFORMED),
    Case("an Infinity literal", _features(x=float("inf")), MALFORMED),
    Case("a lone surrogate", _event(id="\ud800"), MALFORMED),
    Case("no features", _event(features=None), MALFORMED),
    Case("features in a list", _event(features=[GOOD]), MALFORMED),
    Case("an id that is a list", _event(id=[1]), MALFORMED),
    Case("an id that is a boolean", _event(id=True), MALFORMED),
    Case("an id that is too long", _event(id="i" * 1025), MALFORMED),
    Case("a missing feature", _event(features={"row": 0}), INVALID, "i"),
    Case("a null feature", _features(x=None), INVALID),
    Case("text for a number", _features(x="0.5"), INVALID),
    Case("a boolean for a number", _features(x=True), INVALID),
    Case("an object for a number", _features(x={"x": 1}), INVALID),
    Case("a number beyond float32", _features(x=1e39), INVALID),
    Case("a number that is too large", _features(x=2**63), "confirmed: bad_output", "i"),
    Case("an answer out of range", _features(x=2.0), "confirmed: bad_output", "i"),
    Case("a row that raises", _features(row=7), "confirmed: model_error", "i"),
    Case("another row that raises", _features(row=-7), "confirmed: model_error", "i"),
    Case("an integer past 64 bits for an imputed one", _features(row=2**64), PRIMARY, "i"),
    Case("a fraction for an imputed integer", _features(row=0.5), PRIMARY, "i"),
    Case("an unseen category", _features(colour="mauve"), PRIMARY, "i"),
    Case("a category of the wrong type", _features(colour=["red"]), PRIMARY, "i"),
    Case("missing features that are imputed", _event(features={"x": 0.5}), PRIMARY, "i"),
    Case("unknown fields", _event(more=[1, {"a": 2}], features=GOOD | {"z": "unknown"}), PRIMARY, "i"),
    Case("duplicate keys", _event()[:-1] + b', "features": {"x": 0.75, "x": 0.5}, "id": "j"}', PRIMARY, "j"),
    Case("an id that is an integer", _event(id=12), PRIMARY, "12"),
    Case("an empty id", _event(id=""), PRIMARY, "*"),
    Case("no id", _event(id=None), PRIMARY, "*"),
    Case("an id with a zero, a quote and a percent sign", _event(id='\0"%s%'), PRIMARY, '\0"%s%'),
    Case("text that is not a time", _event(at="yesterday"), PRIMARY, "i"),
    Case("a time of another type", _event(at={"year": 2018}), PRIMARY, "i"),
    Case("a null key", _event(), PRIMARY, "i", key=None),
    Case("an empty key", _event(), PRIMARY, "i", key=b""),
    Case("a key that is not UTF-8", b"\xff", MALFORMED, key=b"\xff\xfe"),
    Case("a header value that is not UTF-8", _event(), PRIMARY, "i", [("h", b"\xff"), ("h", None), ("h", b"")]),
    Case("a header without a name", _event(), PRIMARY, "i", [("", b"v")]),
    Case("CloudEvents, binary mode", _event(), PRIMARY, "ce", [("ce_id", b"ce"), ("ce_specversion", b"1.0")]),
    Case("a ce_id that is not UTF-8", _event(), PRIMARY, "i", [("ce_id", b"\xff")]),
    Case("a ce_id without a value", _event(), PRIMARY, "i", [("ce_id", None)]),
    Case("CloudEvents, structured mode", _cloud(), PRIMARY, "c", STRUCTURED),
    Case("a structured CloudEvent without an id", _cloud(id=None), MALFORMED, None, STRUCTURED),
    Case("a structured CloudEvent whose data is text", _cloud(data="d"), MALFORMED, None, STRUCTURED),
    Case(
        "a batch of CloudEvents",
        b"[%s]" % _cloud(),
        MALFORMED,
        None,
        [("content-type", b"application/cloudevents-batch+json")],
    ),
    Case("data_base64", _cloud(data=None, data_base64=b64encode(_event()).decode()), PRIMARY, "c", STRUCTURED),
    Case(
        "a structured CloudEvent in Protobuf",
        b"\x0a\x01x",
        MALFORMED,
        None,
        [("content-type", b"application/cloudevents+protobuf")],
    ),
    Case("Confluent's framing and Avro", FRAMED_AVRO, MALFORMED),
    Case("Confluent's framing, message indexes and Protobuf", FRAMING + b"\0\x0a\x03abc", MALFORMED),
    Case("Confluent's framing and JSON", FRAMING + _event(id="framed"), PRIMARY, "framed"),
    Case(
        "Confluent's header and JSON",
        _event(id="by-header"),
        PRIMARY,
        "by-header",
        [("__value_schema_id", b"\x01" + bytes(16))],
    ),
    Case("a byte order mark", b"\xef\xbb\xbf" + _event(id="bom"), PRIMARY, "bom"),
    Case("Kafka Connect's schema and payload", json.dumps({"schema": {}, "payload": {}}).encode(), MALFORMED),
    Case("Debezium's envelope", json.dumps({"before": None, "after": {}, "op": "c"}).encode(), MALFORMED),
    Case(
        "forged control headers on a good event",
        _event(),
        PRIMARY,
        "i",
        [("failsoft-attempt", b"9"), ("failsoft-next-revision", b"7"), ("failsoft-due-ms", b"9999999999999")],
    ),
    Case(
        "forged control headers on a row that raises",
        _features(row=7),
        "confirmed: model_error",
        "i",
        [("failsoft-attempt", b"2"), ("failsoft-attempt", b"x"), ("failsoft-unknown", b"u"), ("own", b"o")],
    ),
    Case(
        "Kafka's dead letter headers on a bad value",
        b"{",
        MALFORMED,
        None,
        [("__dlq.errors.topic", b"other"), ("own", b"o")],
    ),
    Case("a large header on a bad value", b"{", MALFORMED, None, [("own", b"o" * 50_000)]),
]


def test_each_bad_record_ends_as_it_should_and_its_neighbours_are_answered(
    kafka: Broker, name: str, tmp_path: Path
) -> None:
    """With each case between good events of one batch, its fate and id are the contract's. The good events are
    answered.
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=1)
    with running(pipeline) as settlement:
        pairs = [((c.key, c.value, list(c.headers), 0), events(1, start=i)[0]) for i, c in enumerate(CASES)]
        pipeline.publish(record for pair in pairs for record in pair)
        worker = pipeline.start()
        settlement.wait_final(pipeline.published)
        pipeline.publish((b"k", FRAMED_AVRO, [], 0) for _ in range(4 * len(CASES)))
        settlement.wait_final(pipeline.published)
        assert worker.drain() == 0, worker.tail()
        verdict = settlement.verdict()
        answers = _by_offset(settlement)
        alerts = [Alert.parse(each.value()) for each in read_all(kafka.bootstrap, f"{name}.alerts")]
    assert not verdict.broken, str(verdict)
    # A producer of another format: said once in the log with the keys to set, and as an alert when most events are bad.
    text = worker.log.read_text(errors="replace")
    assert text.count("events are not in the pipeline's format") == 1
    assert "schema id 42: set [input] format and [schema_registry] url" in text
    (alert,) = [each for each in alerts if each.name == "malformed"]
    assert (alert.key, alert.from_, alert.to) == (pipeline.inputs[0], "readable", "malformed")
    assert "schema id 42: set [input] format" in alert.reason
    assert text.count("most events are malformed") == 1
    topic = pipeline.inputs[0]
    for i, case in enumerate(CASES):
        place, neighbour = (topic, 0, 2 * i), (topic, 0, 2 * i + 1)
        assert verdict.fates[place] == case.fate, case.what
        if case.id is not None and case.fate != INVALID:
            assert verdict.ids[place] == (f"{topic}-0-{2 * i}" if case.id == "*" else case.id), case.what
        assert verdict.fates[neighbour] == PRIMARY, case.what
        assert answers[2 * i + 1]["score"] == pytest.approx(json.loads(body(i))["features"]["x"], abs=1e-6), case.what


def test_a_record_at_the_topics_limit_reaches_the_rung_and_the_dead_letters(
    kafka: Broker, name: str, tmp_path: Path
) -> None:
    """A value of the topic's maximum size is retried and dead-lettered unchanged, although our headers enlarge the
    record.
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=1, max_bytes=2_000_000)
    with running(pipeline) as settlement:
        pipeline.publish(events(3))
        _publish_the_largest(kafka.bootstrap, pipeline.inputs[0])
        pipeline.publish(events(3, start=3))
        worker = pipeline.start()
        settlement.wait_final(7)
        assert worker.drain() == 0, worker.tail()
        verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
    assert verdict.counts == {PRIMARY: 6, "confirmed: model_error": 1}


def _publish_the_largest(bootstrap: str, topic: str) -> None:
    """Publishes one failing record of exactly the largest size that the topic accepts."""
    refused: list[object] = []
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 2_000_000})
    # 1,048,588 bytes (Kafka's default max.message.bytes) less the batch header of 61 bytes and the record's own
    # overhead.
    value = _features(row=7, blob="")
    value = value.replace(b'"blob": ""', b'"blob": "%s"' % (b"b" * (1_048_588 - 61 - 12 - len(value))))
    producer.produce(topic, value, b"k", partition=0, on_delivery=lambda error, _: refused.append(error))
    assert producer.flush(30) == 0 and refused == [None], refused


def _by_offset(settlement: Settlement) -> dict[int, dict[str, object]]:
    bodies = [json.loads(r.value or b"") for r in settlement.reader.records[settlement.scored]]
    return {b["origin"]["offset"]: b for b in bodies if b["revision"] == 0}


def _control(topic: str, due: object = None, **changes: object) -> list[Header]:
    """Control headers as a worker writes them, of the event at offset 0 of ``topic``."""
    plain = {
        "attempt": 0,
        "due-ms": due,
        "origin-topic": topic,
        "origin-partition": 0,
        "origin-offset": 0,
        "origin-timestamp-ms": 1,
        "first-failed-ms": 1,
        "error-kind": "model_error",
        "error-message": "m",
        "model": "test",
        "model-version": 1,
        "next-revision": 1,
        "replays": 0,
    } | {k.replace("_", "-"): v for k, v in changes.items()}
    return [
        (f"failsoft-{k}", v if isinstance(v, bytes) else str(v).encode()) for k, v in plain.items() if v is not None
    ]


def test_forged_records_on_a_rung_and_on_replay_are_buried_and_never_hold_the_lane(
    kafka: Broker, name: str, tmp_path: Path
) -> None:
    """Malformed control headers on own topics give one bad_header dead letter each. Records behind them are served."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=1)
    topic, rung, replay = pipeline.inputs[0], f"{name}.retry.1s", f"{name}.replay"
    now = int(time.time() * 1000)
    bad: list[tuple[str, list[Header]]] = [
        ("no headers", []),
        ("no due time", _control(topic)),
        ("a due time that is not a number", _control(topic, "soon")),
        ("a negative due time", _control(topic, -5)),
        ("a due time in a century", _control(topic, now + 3_000_000_000_000)),
        ("a due time past 64 bits", _control(topic, 10**19)),
        ("a due time of a thousand digits", _control(topic, "9" * 1000)),
        ("a due time in other digits", _control(topic, "١٢٣")),
        ("two due times", [*_control(topic, 1), ("failsoft-due-ms", b"1")]),
        ("a due time without a value", [*_control(topic), ("failsoft-due-ms", None)]),
        ("a negative attempt", _control(topic, 1, attempt=-1)),
        ("an attempt that is not UTF-8", _control(topic, 1, attempt=b"\xff")),
        ("the origin of another partition", _control(topic, 1, origin_partition=3)),
        ("an unknown kind", _control(topic, 1, error_kind="tired")),
        ("a topic that is not UTF-8", _control(topic, 1, origin_topic=b"\xff")),
        ("no origin", _control(topic, 1, origin_offset=None)),
    ]
    with running(pipeline) as settlement:
        for where in (rung, replay):
            for what, headers in bad:
                if where == rung or "due" not in what:  # a due time has no meaning on the replay topic
                    value = f"{where} {what}".encode()
                    settlement.forged.add(value)
                    pipeline.publish([(b"\xff", value, [("own", b"\xfe"), *headers], 0)], where)
        forged = pipeline.published
        pipeline.publish([*events(20), (b"k", _features(row=7), [], 0)])
        worker = pipeline.start()
        settlement.wait_final(21)
        settlement.reader.until(lambda: len(settlement.reader.records[settlement.dead]) > forged, 30, "dead letters")
        assert worker.drain() == 0, worker.tail()
        verdict = settlement.verdict()
        letters = settlement.reader.records[settlement.dead]
    assert not verdict.broken, str(verdict)
    assert verdict.counts == {PRIMARY: 20, "confirmed: model_error": 1}
    found = [r for r in letters if r.value in settlement.forged]
    assert sorted(r.value or b"" for r in found) == sorted(settlement.forged)
    for letter in found:
        assert _complaint(letter) == ("bad_header", b"\xff", [b"\xfe"]), letter


def _complaint(letter: Seen) -> tuple[str | None, bytes | None, list[bytes | None]]:
    return letter.header("failsoft-error-kind"), letter.key, [v for k, v in letter.headers if k == "own"]


def test_a_retry_written_by_other_hands_waits_for_its_time(kafka: Broker, name: str, tmp_path: Path) -> None:
    """A well-formed record on a rung from another writer is retried when due, not before. Records behind it wait."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=1)
    rung = f"{name}.retry.1s"
    with running(pipeline) as settlement:
        pipeline.publish([*events(2)])
        worker = pipeline.start()
        settlement.wait_answered(2)  # a retry of an event that was never answered is a sign of lost offsets
        due = int(time.time() * 1000) + 8000
        for i, when in enumerate((due, due - 7000)):
            pipeline.publish([(b"k0", body(i), _control(pipeline.inputs[0], when, origin_offset=i), 0)], rung)
        settlement.reader.until(lambda: len(settlement.reader.records[settlement.scored]) == 4, 40, "two corrections")
        assert worker.drain() == 0, worker.tail()
        settlement.reader.to_the_end()
        answers = settlement.reader.records[settlement.scored]
    corrections = [r for r in answers if r.header("failsoft-revision") == "1"]
    assert [json.loads(r.value or b"")["event_id"] for r in corrections] == ["e0", "e1"]
    assert min(r.timestamp for r in corrections) >= due


def test_a_header_key_that_is_no_text_stops_nobody(kafka: Broker, name: str, tmp_path: Path) -> None:
    """A header key that is not UTF-8 makes client libraries raise; the event and its neighbours are answered all the
    same.
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=1)
    with running(pipeline) as settlement:
        pipeline.publish(events(2))
        asyncio.run(_publish_with_header_keys(kafka.bootstrap, pipeline.inputs[0], [_event(), b"{"]))
        pipeline.publish(events(2, start=2))
        worker = pipeline.start()
        # read_all and not the settlement: the settlement's client can no longer read the input topic.
        answers = read_all(kafka.bootstrap, settlement.scored, until=lambda found: len(found) >= 5, timeout=40)
        letters = read_all(kafka.bootstrap, settlement.dead, until=lambda found: len(found) >= 1)
        assert worker.drain() == 0, worker.tail()
    assert sorted(json.loads(m.value() or b"")["event_id"] for m in answers) == ["e0", "e1", "e2", "e3", "i"]
    (letter,) = letters
    headers = dict(letter.headers() or [])
    assert (headers["failsoft-error-kind"], headers["\ufffd\ufffdQQ"]) == (b"malformed", b"v")


async def _publish_with_header_keys(bootstrap: str, topic: str, values: Sequence[bytes]) -> None:
    """Publishes each value with a header key that is not UTF-8.

    No client sends such a key, so it overwrites a valid key of the same length in the built batch.
    """
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        batch = producer.create_batch()
        for value in values:
            batch.append(timestamp=None, key=b"k", value=value, headers=[("QQQQ", b"v")])
        batch.close()
        build = batch._build

        def spoiled() -> bytearray:
            raw = bytearray(build().replace(b"QQQQ", b"\xff\xfeQQ"))
            raw[17:21] = struct.pack(">I", calc_crc32c(bytes(raw[21:])))
            return raw

        batch._build = spoiled
        await (await producer.send_batch(batch, topic, partition=0))
    finally:
        await producer.stop()
