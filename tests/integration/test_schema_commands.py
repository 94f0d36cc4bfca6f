"""publish, dead show and dead replay with events in Avro and Protobuf, on a real Kafka."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest

from failsoft.schemas.attempt import Attempt
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.formats.registered import Registered, SchemaType
from failsoft.schemas.record import Origin
from failsoft.topics.names import Names
from tests.integration.pipeline import Pipeline
from tests.kafka import Broker, create_topic, produce, read_all
from tests.registry_server import RegistryServer

AVRO: dict[str, Any] = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {
            "name": "features",
            "type": {
                "type": "record",
                "name": "Features",
                "fields": [
                    {"name": "x", "type": "double"},
                    {"name": "row", "type": ["null", "int"], "default": None},
                    {"name": "colour", "type": "string"},
                ],
            },
        },
    ],
}
PROTO = """syntax = "proto3";
import "google/protobuf/timestamp.proto";
message Unused { double y = 1; }
message Event {
  string id = 1;
  google.protobuf.Timestamp at = 2;
  message Features { double x = 1; optional int32 row = 2; string colour = 3; }
  Features features = 3;
}
"""
CSV = "id,timestamp,x,row,colour\ne0,2018-10-30 18:00:00,0.5,,90210\ne1,2018-10-30T18:00:00.5Z,1,7,green\n"
EVENTS = [
    {"id": "e0", "at": "2018-10-30T18:00:00Z", "features": {"x": 0.5, "row": None, "colour": "90210"}},
    {"id": "e1", "at": "2018-10-30T18:00:00.5Z", "features": {"x": 1.0, "row": 7, "colour": "green"}},
]


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    """A registry without schemas."""
    with RegistryServer() as server:
        yield server


def _pipeline(kafka: Broker, name: str, folder: Path, format: str, registry: RegistryServer) -> Pipeline:
    environ = {"FAILSOFT_INPUT__FORMAT": format, "FAILSOFT_SCHEMA_REGISTRY__URL": registry.url}
    made = Pipeline(folder, kafka.bootstrap, name, partitions=1, secrets=environ)
    for topic in (made.inputs[0], Names(name).dead, Names(name).replay):
        create_topic(kafka.bootstrap, topic, 1)
    create_topic(kafka.bootstrap, Names(name).schemas, 1, {"cleanup.policy": "compact"})
    (folder / "event.avsc").write_text(json.dumps(AVRO))
    (folder / "event.proto").write_text(PROTO)
    (folder / "events.csv").write_text(CSV)
    return made


def _dead(name: str, offset: int, value: bytes | None) -> Any:
    origin = Origin(f"{name}.events", 0, offset, 1_700_000_000_000)
    attempt = Attempt(3, origin, 1_700_000_001_000, Failure(Kind.TIMEOUT, "late"), "test", 1, 2)
    return b"k", value, attempt.dead_headers(name), 0


def _run(pipeline: Pipeline, *arguments: str) -> Any:
    done = pipeline.invoke(*arguments)
    assert done.exit_code == 0, done.output
    return done


def _show(pipeline: Pipeline, which: str) -> dict[str, Any]:
    done = _run(pipeline, "dead", "show", which)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _published(pipeline: Pipeline, *options: str) -> tuple[list[bytes], str]:
    """The values that publish writes of the rows, and what it says."""
    before = len(read_all(pipeline.bootstrap, pipeline.inputs[0]))
    done = _run(pipeline, "publish", str(pipeline.folder / "events.csv"), *options)
    records = read_all(pipeline.bootstrap, pipeline.inputs[0])[before:]
    assert [record.key() for record in records] == [b"e0", b"e1"]
    return [record.value() or b"" for record in records], done.stderr


def test_rows_are_written_by_a_protobuf_message_and_letters_are_read_by_it(
    kafka: Broker, name: str, tmp_path: Path, registry: RegistryServer
) -> None:
    """publish registers the file. A letter is found by its id, and is shown decoded."""
    pipeline = _pipeline(kafka, name, tmp_path, "protobuf", registry)
    values, said = _published(pipeline, "--schema", str(tmp_path / "event.proto"), "--message", "Event")
    assert f"event.proto, registered as {name}.events-value" in said
    assert {value[:7] for value in values} == {b"\0\0\0\0\1\2\2"}  # id 1, and the second message of the file
    produce(kafka.bootstrap, Names(name).dead, [_dead(name, n, value) for n, value in enumerate(values)])
    shown = _show(pipeline, "e1")
    assert (shown["event_id"], shown["value"]["schema"]) == ("e1", 1)
    assert shown["value"]["json"]["features"] == EVENTS[1]["features"]


def test_letters_in_avro_are_shown_and_replayed(
    kafka: Broker, name: str, tmp_path: Path, registry: RegistryServer
) -> None:
    """Letters are decoded by the registry's schema, and while it is down by the pipeline's own topic of schemas. Of one
    that cannot be decoded the reason is shown. Replays are byte for byte what came in.
    """
    registry.register(f"{name}.events-value", "AVRO", json.dumps(AVRO))
    pipeline = _pipeline(kafka, name, tmp_path, "avro", registry)
    values, said = _published(pipeline)
    assert f"schema id 1, the latest of {name}.events-value" in said
    read = [fastavro.schemaless_reader(io.BytesIO(v[5:]), fastavro.parse_schema(AVRO), None) for v in values]
    assert [event["features"] for event in read] == [event["features"] for event in EVENTS]
    assert [event["at"].isoformat() for event in read] == [
        "2018-10-30T18:00:00+00:00",
        "2018-10-30T18:00:00.500000+00:00",
    ]

    letters = [_dead(name, n, value) for n, value in enumerate([*values, b"\0\0\0\0\7x", b"{}"])]
    produce(kafka.bootstrap, Names(name).dead, letters)
    shown = _show(pipeline, "e0")
    assert shown["at"] == "0:0" and shown["value"]["json"]["features"] == EVENTS[0]["features"]
    missing = _show(pipeline, "0:2")
    assert missing["event_id"] == f"{name}.events-0-2"
    assert missing["value"]["hex"] == "000000000778" and "schema id 7" in missing["value"]["problem"]

    registry.stop()
    down = _show(pipeline, "0:1")
    assert down["event_id"] == f"{name}.events-0-1" and registry.url in down["value"]["problem"]
    kept = Registered(1, SchemaType.AVRO, json.dumps(AVRO)).to_bytes()
    produce(kafka.bootstrap, Names(name).schemas, [(b"1", kept, [], 0)])
    assert _show(pipeline, "0:1")["value"]["json"]["id"] == "e1"
    replayed = _run(pipeline, "dead", "replay", "--event", "e1")
    assert json.loads(replayed.stdout)["replayed"] == 1, replayed.stderr
    assert [record.value() for record in read_all(kafka.bootstrap, Names(name).replay)] == [values[1]]
