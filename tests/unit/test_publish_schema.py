"""`failsoft publish --schema`: which schema is used, and what is refused before Kafka is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from failsoft.schemas.event import Envelope
from failsoft.schemas.features.spec import FeatureType, Spec
from failsoft.schemas.formats.registered import Registered, SchemaType
from failsoft.topics import admin
from failsoft.workers.cli import app
from failsoft.workers.operations import avro_tree, schema_rows
from failsoft.workers.operations.avro_writer import AvroWriter
from failsoft.workers.operations.event_files import BadRow, Csv, Ndjson
from tests.registry_server import RegistryServer

AVRO: dict[str, Any] = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "zip", "type": "string"},
        {
            "name": "inner",
            "type": {"type": "record", "name": "I", "fields": [{"name": "v", "type": ["null", "double"]}]},
        },
        {"name": "list", "type": {"type": "array", "items": "int"}},
    ],
}
PIPELINE = """
name = "p"
model = "m"
[kafka]
bootstrap_servers = "127.0.0.1:1"
[input]
topics = ["events"]
format = "{format}"
id = "id"
features = ""
"""


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    """A registry without schemas."""
    with RegistryServer() as server:
        yield server


def _told(folder: Path, format: str, registry: RegistryServer, *options: str, code: int) -> str:
    url = f'[schema_registry]\nurl = "{registry.url}"\n'
    (folder / "pipeline.toml").write_text(PIPELINE.format(format=format) + url)
    (folder / "rows.csv").write_text("id,zip\n1,2\n")
    (folder / "event.avsc").write_text(json.dumps(AVRO))
    (folder / "event.proto").write_text('syntax = "proto3"; message M { double x = 1; }')
    given = [str(folder / each) if each.startswith("event.") else each for each in options]
    done = CliRunner().invoke(app, ["publish", str(folder / "rows.csv"), "--pipeline", str(folder), *given])
    assert done.exit_code == code, done.output
    return done.stderr


@pytest.mark.parametrize(
    ("format", "options", "code", "words"),
    [
        ("avro", [], 1, "give --schema a file, which is registered"),
        ("avro", ["--schema", "event.proto"], 1, 'a schema of type PROTOBUF, but [input] format is "avro"'),
        ("avro", ["--schema", "nothing.avsc"], 2, "No such file"),
        ("avro", ["--schema", "event.avsc", "--message", "M"], 1, "leave out --message"),
        ("protobuf", ["--schema", "event.proto", "--message", "N"], 1, "'N' is none of its messages: M"),
        ("json", ["--schema", "event.avsc"], 2, "only for events in Avro or Protobuf"),
        ("json", ["--message", "M"], 2, "only for events in Avro or Protobuf"),
    ],
)
def test_a_schema_that_does_not_fit_is_refused(
    tmp_path: Path, registry: RegistryServer, format: str, options: list[str], code: int, words: str
) -> None:
    """The message says what would be right, and nothing is registered."""
    assert words in _told(tmp_path, format, registry, *options, code=code)
    assert not [route for route in registry.requests if route.startswith("POST")]


def test_what_the_registry_says_is_told(
    tmp_path: Path, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its refusal, in its words, and its address when it is down. With its id, Kafka is asked (exit code 4)."""

    async def unreachable(*_: Any) -> None:
        raise admin.KafkaUnreachable("no Kafka")

    monkeypatch.setattr(admin, "_reach", unreachable)  # it tries for seconds
    said = _told(tmp_path, "avro", registry, "--schema", "event.avsc", code=4)
    assert "schema id 1: " in said and "registered as events-value" in said
    registry.incompatible = ["the field zip was removed"]
    assert "the field zip was removed" in _told(tmp_path, "avro", registry, "--schema", "event.avsc", code=1)
    registry.stop()
    assert registry.url in _told(tmp_path, "avro", registry, code=1)


WRITER = AvroWriter(Registered(7, SchemaType.AVRO, json.dumps(AVRO)))
ENVELOPE = Envelope("id", None, "")


def test_the_cells_of_a_csv_are_read_by_the_schemas_types() -> None:
    """Text of digits stays text, a path leads into records, a list is JSON, and an empty cell may be null."""
    cards = [Spec("value", FeatureType.STRING, field="inner.v"), Spec("unknown", FeatureType.FLOAT)]
    specs = schema_rows.specs(avro_tree.read(AVRO), cards, ENVELOPE)
    assert {(spec.name, spec.path, spec.type) for spec in specs} == {
        ("zip", "zip", FeatureType.STRING),
        ("value", "inner.v", FeatureType.FLOAT),
        ("list", "list", FeatureType.TENSOR),
    }
    rows = schema_rows.SchemaRows(Csv(ENVELOPE, None, specs), WRITER, 7)
    made = list(rows.rows([b"id,zip,value,list", b'17,0123,0.5,"[1, -1]"', b"18,4,,[]"]))
    first = b"\0\0\0\0\7" + b"\x22" + b"\x080123" + b"\2" + b"\0\0\0\0\0\0\xe0?" + b"\4\2\1\0"
    assert made[0] == (b"17", first)
    assert made[1] == (b"18", b"\0\0\0\0\7" + b"\x24" + b"\x024" + b"\0" + b"\0")


def test_a_row_that_does_not_fit_is_named() -> None:
    """The rows before it are given first. A line that is no JSON is refused, too."""
    good = b'{"id":1,"zip":"a","inner":{},"list":[]}'
    for bad, words in ((b"{", "event 2: not JSON"), (b'{"id":"x"}', "event 2: id: 'x', and the schema wants a whole")):
        rows = schema_rows.SchemaRows(Ndjson(ENVELOPE, None), WRITER, 7).rows([good, bad])
        assert next(rows)[0] == b"1"
        with pytest.raises(BadRow) as refused:
            next(rows)
        assert words in str(refused.value)
