"""The target for Protobuf: values of a schema, and descriptors of one, whatever is wrong with them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from failsoft.schemas.features.paths import Absent
from failsoft.schemas.formats import protobuf_wire
from failsoft.schemas.formats.protobuf import ProtobufReader, compile_protobuf
from failsoft.schemas.formats.reader import Undecodable, Want, WantedFields
from failsoft.schemas.formats.registered import Unusable
from tests.fuzz.target import Target
from tests.protobuf_schemas import message, reader, registered

FIELDS = (
    *(("amount", Want.NUMBER), ("ratio", Want.NUMBER), ("count", Want.INTEGER), ("flag", Want.BOOL)),
    *(("note", Want.STRING), ("channel", Want.STRING), ("income", Want.NUMBER), ("number", Want.INTEGER)),
    *(("wrapped", Want.NUMBER), ("seen", Want.TIME), ("waited", Want.STRING), ("extra.a.b", Want.TENSOR)),
    *(("price", Want.STRING), ("fee", Want.INTEGER), ("born", Want.TIME), ("opens", Want.STRING)),
    *(("pixels", Want.TENSOR), ("vector", Want.TENSOR), ("scores.a.b", Want.NUMBER), ("items.7.name", Want.STRING)),
    *(("list", Want.STRING), ("item.deep.level", Want.NUMBER), ("any_json.x", Want.STRING), ("any", Want.STRING)),
)
NUMBERS = ["amount", "ratio", "count", "income", "wrapped"]
JSON_OR_BYTES = (type(None), bool, int, float, str, list, dict, bytes, Absent)
LONGEST = 1000
"""Characters of a reason, for a value of any size."""


@cache
def _reader() -> ProtobufReader:
    return reader(WantedFields("id", "at", "features", FIELDS))


def protobuf(data: bytes) -> bool:
    """A value is read, alone as among others, or is bad with a short reason; the reader of a value for people agrees.

    Our own walk over the wire format finds something wrong exactly where protobuf does. The same bytes as descriptors
    give a reader, or Unusable. Bytes that begin with W are woven to a value.
    """
    _as_descriptors(data)
    data = b"\0" + _woven(data[1:]) if data.startswith(_WOVEN) else data
    made, good = _reader(), _SEEDS[0]
    decoded = made.read([good, data, good])
    for place in (0, decoded.rows.size - 1):
        assert decoded.rows.column("id")[place] == "order-1"
        assert decoded.rows.feature("price")[place] == "1234567.89"
    _walked(data)
    if 1 in decoded.bad:
        assert list(decoded.kept) == [0, 2] and 0 < len(decoded.bad[1]) < LONGEST
        try:
            made.value(data)
        except Undecodable as e:
            assert str(e) == decoded.bad[1]
        else:
            raise AssertionError("it is read for people, and not as an event")
        return False
    assert list(decoded.kept) == [0, 1, 2] and decoded.bad == {}
    json.dumps(made.value(data), allow_nan=False)
    alone = made.read([data]).rows
    for path in ("id", "at", "features"):
        assert isinstance(alone.column(path)[0], JSON_OR_BYTES)
    for path, _ in FIELDS:
        found = alone.feature(path)[0]
        assert isinstance(found, JSON_OR_BYTES)
        assert repr(found) == repr(decoded.rows.feature(path)[1])
    matrix = alone.matrix(NUMBERS)
    assert matrix is not None
    numbers = [alone.feature(path)[0] for path in NUMBERS]
    np.testing.assert_array_equal(matrix[0], [np.nan if type(each) is Absent else each for each in numbers])
    return True


def _woven(data: bytes) -> bytes:
    """A message of valid wire format that ``data`` decides: each byte is a field's number and kind, and what follows
    gives the value. Mutations of a message itself leave few that can be decoded.
    """
    made, at = b"", 0
    while at < len(data):
        number, kind = 1 + (data[at] & 31), data[at] >> 5
        size = data[at + 1] if at + 1 < len(data) else 0
        at += 2
        if kind in (0, 4):
            size %= 9
            value = _varint(int.from_bytes(data[at : at + size]))
            wire = 0
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, wire = data[at : at + size].ljust(size, b"\0"), kind
        else:
            content = data[at : at + size]
            content = content if kind < 4 else _woven(content)
            value, wire = _varint(len(content)) + content, 2
        made += _varint(number << 3 | wire) + value
        at += size
    return made


def _varint(number: int) -> bytes:
    made = b""
    while number > 127:
        made, number = made + bytes([number & 127 | 128]), number >> 7
    return made + bytes([number])


def _walked(data: bytes) -> None:
    try:
        indexes, at = protobuf_wire.indexes(data)
    except Undecodable:
        return
    if indexes != (0,):
        return
    class_ = _event()
    try:
        class_.FromString(data[at:])
        refused = False
    except DecodeError:
        refused = True
    assert (protobuf_wire.BadPlaces().first(class_.DESCRIPTOR, data[at:]) is not None) == refused


@cache
def _event() -> Any:
    return message("shop.Event")


def _as_descriptors(data: bytes) -> None:
    try:
        made = compile_protobuf(registered(""), data, WantedFields("id", "at", "features", FIELDS))
    except Unusable as e:
        assert str(e)
        return
    decoded = made.read([_SEEDS[0], b"\0", b"\2\2"])
    assert sorted([*decoded.kept, *decoded.bad]) == [0, 1, 2]
    for path, _ in FIELDS:
        assert len(decoded.rows.feature(path)) == len(decoded.kept)


def _seed(fields: dict[str, Any], indexes: bytes = b"\0") -> bytes:
    made: bytes = json_format.ParseDict(fields, _event()()).SerializeToString()
    return indexes + made


_FULL: dict[str, Any] = {
    "id": "order-1",
    "at": "2026-11-24T10:00:00.123Z",
    "features": {
        "amount": 12.5, "ratio": 0.25, "count": "-7", "flag": True, "note": "Zürich", "channel": "SHOP",
        "income": 1.5, "text": "x", "wrapped": 2.5, "seen": "2026-11-24T10:00:00Z", "waited": "-1.5s",
        "extra": {"a": {"b": [1, None]}}, "price": {"value": "B1vNFQ==", "scale": 2}, "fee": {"value": "-1.5e3"},
        "born": {"year": 1969, "month": 7, "day": 20}, "opens": {"hours": 9}, "pixels": "AAE=", "vector": [0.5, 1],
        "scores": {"a.b": 1.5, "c": 2}, "items": {"7": {"name": "n", "deep": {"level": -3}}}, "list": [{}, {}],
        "item": {"price": 2, "deep": {}}, "anyJson": {"x": "y"}, "channels": ["WEB"], "wrappedBytes": "AAE=",
    },
}  # fmt: skip
_SEEDS = (
    _seed(_FULL),
    _seed({"id": "order-2"}, b"\2\0"),
    _seed({}, b"\2\2"),
    _seed(_FULL) + b"\xa3\x06\x08\x01\xa4\x06",
)

_PARTS = (
    b"\x21\0" + b"\x40" * 8,  # amount
    *(b"\xea\x0c" + bytes([kind, 8]) + b"\xff" * 8 for kind in (0, 1)),  # seen: seconds, nanos
    b"\xeb\x14" + b"\0\x08" + b"\xff" * 8 + b"\1\4" + b"\xff" * 4,  # waited
    b"\xed\x0e" + b"\x40\2\xff\7" + b"\2\6" + b"\xff" * 6,  # price: value, scale
    b"\xee\7" + b"\x40\5-1e-9",  # fee
    b"\xef\7" + b"\0\2\7\xe9\1\1\7\2\1\x14",  # born
    b"\xf3\x0f" + b"\x40\3a.b\x21\0" + b"\x3f" * 8,  # scores
    b"\xf4\x0d" + b"\0\1\7\xe1\x08\xe2\3\0\1\5\x40\1n",  # items
    b"\xec\x10" + b"\xe0\x0e\x40\1a\xe1\x09\xe5\7\xe0\5\x42\3\1x\0",  # extra
    b"\xf5\0" * 5 + b"\5\1\x4d\6\1\2",  # list, channel, income
)
_THREADS = tuple(
    b"W\x40\1x" + bytes([0xE2, len(body)]) + body
    for body in (*_PARTS, b"".join(_PARTS[:4]), b"".join(_PARTS[4:8]), b"".join(_PARTS[7:]))
)
_WOVEN = b"W"

TARGETS = (
    Target(
        "protobuf",
        protobuf,
        (*_SEEDS, *_THREADS),
        (b"\0", b"\2\2", b"\4\0\0", b"\x12\0", b"\x1a\x02", b"\xff" * 9 + b"\x01", b"\xff" * 10, b"\x0b", b"\x0c"),
    ),
)
