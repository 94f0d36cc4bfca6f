"""CloudEvents: where the data are, in which format, and by which schema."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from failsoft.schemas.cloud_events import data_format, schema_of
from failsoft.schemas.decoding import decode
from failsoft.schemas.event import Envelope, Events
from failsoft.schemas.failure import Kind
from failsoft.schemas.features.reading import columns_in
from failsoft.schemas.features.spec import FeatureType, Spec
from failsoft.schemas.features.table import FeatureTable
from failsoft.schemas.formats.framing import HEADER
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.schemas.record import Header
from failsoft.schemas.unwrapping import SchemaData, schema_refs, unwrap
from tests.kit import Rec, objects
from tests.schema_readers import FakeReader, encoded

AVRO, PROTOBUF = WireFormat.AVRO, WireFormat.PROTOBUF
REGISTRIES = ("http://one:8081", "https://two/registry")
JSON_TOPIC = Envelope(id="id", time="at", registries=REGISTRIES)
AVRO_TOPIC = Envelope(id="id", time="at", format=AVRO, registries=REGISTRIES)
AT, CE_AT = "2018-10-30T18:00:00Z", "2026-02-02T02:02:02Z"
DATA = {"id": "own", "at": AT, "features": {"x": 1.0}}
BARE, FRAMED = encoded(7, DATA)[5:], encoded(7, DATA)
STRUCTURED = ("content-type", b"application/cloudevents+json; charset=UTF-8")


def _binary(content_type: bytes, *more: Header) -> list[Header]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"c1"),
        ("ce_time", CE_AT.encode()),
        ("content-type", content_type),
        *more,
    ]


def _structured(**more: Any) -> Rec:
    value = {"specversion": "1.0", "id": "c1", "source": "/s", "type": "t", "time": CE_AT} | more
    return Rec(value=json.dumps(value).encode(), headers=[STRUCTURED])


def _base64(raw: bytes) -> str:
    return b64encode(raw).decode()


def _decode(record: Rec, envelope: Envelope) -> Events:
    """Decode it between two plain JSON or Avro events, which must not change."""
    plain = Rec(value=json.dumps(DATA).encode() if envelope.format is WireFormat.JSON else FRAMED)
    batch = decode([plain, record, plain], {}, envelope, {7: FakeReader()})
    assert (batch.ids[0], batch.times[0], batch.ids[2]) == ("own", AT, "own") and not {0, 2} & set(batch.failures)
    return batch


@pytest.mark.parametrize("envelope", [JSON_TOPIC, AVRO_TOPIC])
@pytest.mark.parametrize(
    "record",
    [
        Rec(value=FRAMED, headers=_binary(b"application/avro")),
        Rec(value=BARE, headers=_binary(b"avro/binary", ("ce_dataschema", b"https://two/registry/schemas/ids/7"))),
        Rec(value=FRAMED, headers=_binary(b"application/x-avro", ("ce_dataschema", b"http://one:8081/schemas/ids/7"))),
        Rec(value=BARE, headers=_binary(b"application/avro", (HEADER, FRAMED[:5]))),
        _structured(datacontenttype="application/avro", data_base64=_base64(FRAMED)),
        _structured(
            datacontenttype="avro/binary", data_base64=_base64(BARE), dataschema="http://one:8081/schemas/ids/7"
        ),
        Rec(value=json.dumps(DATA).encode(), headers=_binary(b"application/json")),
        Rec(value=b"\xef\xbb\xbf" + json.dumps(DATA).encode(), headers=_binary(b"text/json; charset=utf-8")),
        _structured(data=DATA),
        _structured(data=DATA, datacontenttype="application/json", data_base64=None),
        _structured(data_base64=_base64(json.dumps(DATA).encode())),
        _structured(data_base64=_base64(json.dumps(DATA).encode()), datacontenttype="application/vnd.x+json"),
    ],
)
def test_data_are_read_by_their_content_type(record: Rec, envelope: Envelope) -> None:
    """Both modes may have JSON or Avro, in a topic of either; the id and the time are the CloudEvent's."""
    batch = _decode(record, envelope)
    assert batch.failures == {} and (batch.ids[1], batch.times[1]) == ("c1", CE_AT)
    if isinstance(batch.features, FeatureTable):
        made = columns_in(batch.features, [0, 1, 2], [Spec("x", FeatureType.FLOAT)])
        assert made.values["x"].tolist() == [1.0] * 3
    else:
        assert objects(batch) == [DATA["features"]] * 3


def test_without_a_content_type_the_topics_format_counts() -> None:
    """So it does for a type that means none of the formats, and in data_base64 for what begins with a zero byte."""
    headers = [("ce_id", b"c1")]
    for record in (
        Rec(value=FRAMED, headers=headers),
        Rec(value=FRAMED, headers=_binary(b"application/octet-stream")),
        _structured(data_base64=_base64(FRAMED)),
    ):
        assert _decode(record, AVRO_TOPIC).failures == {}
        assert "5 bytes of Confluent framing" in _decode(record, JSON_TOPIC).failures[1].message


def test_a_content_type_without_a_cloud_event_is_not_read() -> None:
    """Writers set it carelessly: a record without CloudEvents' headers is in the topic's format."""
    assert _decode(Rec(value=FRAMED, headers=[("content-type", b"application/json")]), AVRO_TOPIC).failures == {}


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (Rec(value=b"[]", headers=[("content-type", b"application/cloudevents-batch+json")]), "a batch of CloudEvents"),
        (Rec(value=b"\n", headers=[("content-type", b"application/cloudevents+protobuf")]), "in binary mode"),
        (
            Rec(value=b"\n", headers=[("content-type", b"application/cloudevents+avro")]),
            "'application/cloudevents+avro'",
        ),
        (_structured(data=DATA, data_base64=""), "has data and data_base64"),
        (_structured(data_base64=5), "data_base64 is a number, not a string"),
        (_structured(data_base64="e"), "data_base64 is not base64"),
        (_structured(data_base64=_base64(b"[]")), "the CloudEvent's data is a list, not an object"),
        (_structured(data_base64=_base64(b"{")), "not JSON"),
        (_structured(), "the CloudEvent's data is null, not an object"),
        (Rec(value=BARE, headers=_binary(b"application/avro")), "the value begins with the bytes 01 7b"),
        (
            Rec(value=BARE, headers=_binary(b"application/avro", ("ce_dataschema", b"http://other/schemas/ids/7"))),
            "not with Confluent's framing",
        ),
        (_structured(data_base64=_base64(encoded(8, DATA)), datacontenttype="application/avro"), "schema id 8, but"),
    ],
)
@pytest.mark.parametrize("envelope", [JSON_TOPIC, AVRO_TOPIC])
def test_what_cannot_be_read_is_said(record: Rec, why: str, envelope: Envelope) -> None:
    """Other modes, and data that are not what the event says, are malformed in words."""
    batch = _decode(record, envelope)
    assert batch.failures[1].kind is Kind.MALFORMED and why in batch.failures[1].message


def test_the_id_of_a_cloud_event_that_cannot_be_read_is_kept() -> None:
    """It is known although the data are not."""
    for record in (_structured(data_base64="e"), Rec(value=BARE, headers=_binary(b"application/avro"))):
        assert _decode(record, AVRO_TOPIC).ids[1] == "c1"


def test_the_schemas_of_cloud_events_are_named() -> None:
    """Whoever fetches schemas learns those of CloudEvents too, also in a JSON topic."""
    records = [
        Rec(value=FRAMED),
        Rec(value=encoded(8, DATA), headers=_binary(b"application/avro")),
        Rec(value=BARE, headers=_binary(b"application/avro", ("ce_dataschema", b"http://one:8081/schemas/guids/AB-1"))),
        _structured(datacontenttype="application/avro", data_base64=_base64(encoded(9, DATA))),
        _structured(data=DATA),
        Rec(value=b"{}", headers=_binary(b"application/json")),
        Rec(value=b"x", headers=_binary(b"application/avro")),
    ]
    assert schema_refs(records, AVRO_TOPIC) == {7, 8, 9, "ab-1"}
    assert schema_refs(records, JSON_TOPIC) == {8, 9, "ab-1"}


def test_bare_protobuf_is_the_schemas_first_message() -> None:
    """A dataschema names no message, so the reader gets the indexes of the first one."""
    headers = _binary(b"application/protobuf", ("ce_dataschema", b"http://one:8081/schemas/ids/7"))
    data = unwrap(Rec(value=b"\x0a\1x", headers=headers), JSON_TOPIC)
    assert isinstance(data, SchemaData) and (data.ref, data.payload) == (7, b"\0\x0a\1x")


@pytest.mark.parametrize(
    ("media", "format"),
    [
        ("application/json", WireFormat.JSON),
        ("Text/JSON; charset=utf-8", WireFormat.JSON),
        ("application/vnd.apache.avro+json", WireFormat.JSON),
        ("application/avro", AVRO),
        ("avro/binary", AVRO),
        ("application/vnd.apache.avro+binary", AVRO),
        ("application/x-protobuf;messageType=x", PROTOBUF),
        ("application/vnd.google.protobuf", PROTOBUF),
        ("application/octet-stream", None),
        ("application/xml", None),
        ("avro", None),
        ("", None),
        (None, None),
        (5, None),
    ],
)
def test_media_types(media: object, format: WireFormat | None) -> None:
    """The types that are registered or common; parameters and capitals do not count."""
    assert data_format(media) is format


@pytest.mark.parametrize(
    ("uri", "ref"),
    [
        ("http://one:8081/schemas/ids/7", 7),
        ("https://two/registry/schemas/ids/7?subject=", 7),
        ("http://one:8081/schemas/ids/4294967296", None),
        ("http://one:8081/schemas/ids/-7", None),
        ("http://one:8081/schemas/ids/", None),
        ("http://one:8081/subjects/x/versions/7", None),
        ("http://one:80811/schemas/ids/7", None),
        ("/schemas/ids/7", None),
        ("https://example.com/schemas/ids/7", None),
        (None, None),
        (7, None),
    ],
)
def test_a_dataschema_of_our_registry_names_a_schema(uri: object, ref: int | None) -> None:
    """Other addresses say nothing: a schema is asked for from our registries alone."""
    assert schema_of(uri, REGISTRIES) == ref
