"""Reads records in Kafka's formats of before 0.11 (magic 0 and 1): messages, and compressed sets of messages.

A broker keeps such records as they were written, and Kafka's clients still read them. aiokafka's own reader trusts the
lengths in a set, and never ends with some of them.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from typing import NamedTuple

from failsoft.workers.kafka import codecs
from failsoft.workers.kafka.unreadable import DamagedBatch

MAGICS = (0, 1)
"""The formats that this module reads."""

_HEAD = struct.Struct(">qiIbb")  # offset, length, checksum, magic, attributes
_OVERHEAD = struct.calcsize(">qi")
_CRC_FROM = struct.calcsize(">qiI")
_TIMESTAMP = struct.Struct(">q")
_LENGTH = struct.Struct(">i")
_LENGTH_AT = 8
_LOG_APPEND_TIME = 0x08

NO_TIMESTAMP = -1
"""The timestamp of a record of magic 0, which has none. Kafka's clients give this number too."""


class Message(NamedTuple):
    """A record, with the names of aiokafka's. ``timestamp`` is in epoch milliseconds."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[()] = ()
    timestamp_type: None = None
    checksum: None = None


def verify(raw: memoryview) -> None:
    """Raises DamagedBatch if the checksum of a message is wrong, or it is cut."""
    if not _is_sound(raw):
        raise DamagedBatch("its checksum is wrong", trusted=False)


def records(raw: memoryview) -> list[Message]:
    """The record of a message, or the records of the compressed set that it wraps.

    Raises DamagedBatch. lz4 in magic 0 is not read: its frames are not those of any lz4 library (KAFKA-3160).
    """
    magic, attributes, outer = _message(raw)
    codec = attributes & codecs.CODEC_MASK
    if codec == codecs.NONE:
        return [outer]
    if outer.value is None:
        raise DamagedBatch("it is a compressed set of messages without a value")
    if codec == codecs.ZSTD or (codec == codecs.LZ4 and magic == 0):
        raise DamagedBatch(f"{codecs.NAMES[codec]} is not read in a message of magic {magic}")
    found: list[Message] = []
    view, at = memoryview(codecs.unpack(codec, outer.value)), 0
    while at < len(view):
        if at + _HEAD.size > len(view):
            raise DamagedBatch("its last message is cut")
        end = at + _OVERHEAD + _LENGTH.unpack_from(view, at + _LENGTH_AT)[0]
        if not at + _HEAD.size <= end <= len(view):
            raise DamagedBatch(f"it has a message of {end - at} bytes")
        if not _is_sound(view[at:end]):
            raise DamagedBatch("the checksum of a message in it is wrong")
        inner_magic, inner_attributes, message = _message(view[at:end])
        if inner_magic != magic or inner_attributes & codecs.CODEC_MASK:
            raise DamagedBatch("it has a message of another format, or one that is compressed once more")
        found.append(message)
        at = end
    if not found:
        raise DamagedBatch("it is a compressed set without messages")
    # Since magic 1 the offsets in a set are relative, and the set itself has its last one's.
    base = outer.offset - found[-1].offset if magic else 0
    offsets = [base + m.offset for m in found]
    if offsets[0] < 0 or offsets[-1] != outer.offset or any(b <= a for a, b in itertools.pairwise(offsets)):
        raise DamagedBatch(f"its messages have the offsets {offsets[0]} to {offsets[-1]}, and it has {outer.offset}")
    if not magic:
        return found
    appended = bool(attributes & _LOG_APPEND_TIME)
    return [
        Message(offset, outer.timestamp if appended else m.timestamp, m.key, m.value)
        for offset, m in zip(offsets, found, strict=True)
    ]


def _is_sound(raw: memoryview) -> bool:
    return len(raw) >= _HEAD.size and bool(_HEAD.unpack_from(raw)[2] == zlib.crc32(raw[_CRC_FROM:]))


def _message(raw: memoryview) -> tuple[int, int, Message]:
    """The magic and the attributes of one message, and the message. Raises DamagedBatch."""
    offset, _, _, magic, attributes = _HEAD.unpack_from(raw)
    at, timestamp = _HEAD.size, NO_TIMESTAMP
    try:
        if magic == 1:
            (timestamp,) = _TIMESTAMP.unpack_from(raw, at)
            at += _TIMESTAMP.size
        key, at = _bytes(raw, at)
        value, at = _bytes(raw, at)
    except struct.error:
        raise DamagedBatch("it is shorter than its lengths say") from None
    return magic, attributes, Message(offset, timestamp, key, value)


def _bytes(raw: memoryview, at: int) -> tuple[bytes | None, int]:
    (length,) = _LENGTH.unpack_from(raw, at)
    at += _LENGTH.size
    if length == -1:
        return None, at
    if not 0 <= length <= len(raw) - at:
        raise DamagedBatch(f"it has a key or value of {length} bytes, and {len(raw) - at} bytes are left")
    return bytes(raw[at : at + length]), at + length
