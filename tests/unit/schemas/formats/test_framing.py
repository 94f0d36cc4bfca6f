"""Confluent's framing: the schema of a value, and its bytes. The bytes are those that Confluent's clients write."""

from __future__ import annotations

import pytest

from failsoft.schemas.formats.framing import HEADER, Unframed, refs, split
from failsoft.schemas.formats.wire_format import WireFormat
from tests.kit import Rec

AVRO, PROTOBUF = WireFormat.AVRO, WireFormat.PROTOBUF
GUID = "89791762-2336-4186-9674-299b90a802e2"
GUID_HEADER = bytes.fromhex("01 89791762 2336 4186 9674 299b90a802e2")


def test_a_value_names_its_schema_by_five_bytes() -> None:
    """The id is big-endian, and the reader gets the rest; of Protobuf that begins with the message's indexes."""
    assert split(b"\0\0\0\1\2abc", None, AVRO) == (258, b"abc")
    assert split(b"\0\xff\xff\xff\xff\0abc", None, PROTOBUF) == (2**32 - 1, b"\0abc")
    assert split(b"\0\0\0\0\7", None, AVRO) == (7, b"")


def test_the_header_comes_before_the_value() -> None:
    """With the header the value is bare, and a Protobuf's indexes are taken from the header."""
    assert split(b"\0\0\0\0\7", GUID_HEADER, AVRO) == (GUID, b"\0\0\0\0\7")
    assert split(b"abc", b"\0\0\0\0\7", AVRO) == (7, b"abc")
    assert split(b"abc", GUID_HEADER + b"\4\0\2", PROTOBUF) == (GUID, b"\4\0\2abc")


@pytest.mark.parametrize(
    ("value", "header", "format", "why"),
    [
        (b'{"id": "e1"}', None, AVRO, '7b 22 69 64 22 3a 20 22 (JSON, which [input] format = "json" reads), not'),
        (b"Obj\x01\x04", None, AVRO, "an Avro file"),
        (b"\xc3\x01abcdefgh", None, AVRO, "single-object encoding"),
        (b"\0\0\0\7", None, AVRO, "has only the bytes 00 00 00 07, not with Confluent's framing"),
        (b"", None, PROTOBUF, "the value is empty, not with Confluent's framing: a byte 0 and a schema's id of 4 byt"),
        (b"abc", b"", AVRO, f"the header {HEADER} is empty: it takes a byte 1 and a GUID"),
        (b"abc", b"\1abcdefgh", AVRO, "begins with the bytes 01 61 62"),
        (b"abc", b"\2" * 17, AVRO, "begins with the bytes 02 02"),
        (b"abc", GUID_HEADER, PROTOBUF, "ends before the Protobuf message's indexes"),
        (b"abc", GUID_HEADER + b"\0", AVRO, "has 18 bytes, not 17"),
    ],
)
def test_a_value_without_framing_says_what_it_begins_with(
    value: bytes, header: bytes | None, format: WireFormat, why: str
) -> None:
    """The message has the first bytes, what they are where that is known, and what would be right."""
    with pytest.raises(Unframed) as e:
        split(value, header, format)
    assert why in str(e.value) and len(str(e.value)) < 300


def test_the_schemas_of_a_batch() -> None:
    """Each schema is named once, by header or value; values that name none are passed over, and JSON names none."""
    records = [
        *(Rec(value=b"\0\0\0\0" + bytes([n % 3]) + b"x") for n in range(9)),
        Rec(value=b"\0\0\0\0\7", headers=[("other", b"\1"), (HEADER, b"\0\0\0\0\5"), (HEADER, GUID_HEADER)]),
        Rec(value=b"\0\0\0\0\6", headers=[("other", None)]),
        Rec(value=b"\0\0\0\0\7", headers=[(HEADER, b"rubbish")]),
        Rec(value=None),
        Rec(value=b""),
        Rec(value=b"{}"),
    ]
    assert refs(records, AVRO) == {0, 1, 2, 6, GUID}
    assert refs(records, WireFormat.JSON) == set()
