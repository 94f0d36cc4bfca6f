"""Fetch requests and answers on the wire: version 11, which brokers have since 2.3.

aiokafka encodes and decodes field by field, in 1.8 and 3.6 µs a partition: 11 % of a core for 200 busy partitions and
100 fetches a second. These classes give the same bytes in 0.2 and 1.2 µs, with one or two calls of ``struct`` for each
partition. A test compares both.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple, Self

from aiokafka.protocol.api import Request
from aiokafka.protocol.fetch import FetchRequest_v11

from failsoft.workers.kafka.fetch_session import FetchContent

READ_COMMITTED = 1

_HEAD = struct.Struct(">iiiibii")  # replica, max wait, min bytes, max bytes, isolation, session id, session epoch
_COUNT = struct.Struct(">i")
_LENGTH = struct.Struct(">h")
_ASKED = struct.Struct(">iiqqi")  # partition, leader epoch, offset, log start, max bytes

_ANSWER = struct.Struct(">ihii")  # throttle time, error, session id, number of topics
_PART = struct.Struct(">ihqqqi")  # partition, error, high watermark, last stable offset, log start, aborted
_ABORTED = struct.Struct(">qq")
_RECORDS = struct.Struct(">ii")  # preferred replica, bytes of records


class PartitionAnswer(NamedTuple):
    """One partition of an answer.

    Attributes:
        topic: its topic.
        partition: its number.
        error: Kafka's error code; 0 is none.
        highwater: the high watermark; -1 with an error.
        stable: the last stable offset; -1 with an error.
        aborted: the aborted transactions among the records, as (producer id, first offset).
        preferred: the node to fetch from instead of this one; -1 is none.
        records: the record batches, of which the last may be cut.
    """

    topic: str
    partition: int
    error: int
    highwater: int
    stable: int
    aborted: list[tuple[int, int]]
    preferred: int
    records: bytes


@dataclass(frozen=True, slots=True)
class FetchAnswer:
    """A fetch response.

    Attributes:
        throttle_ms: how long the broker asks the client to wait, in milliseconds.
        error: the error code of the whole answer; 0 is none.
        session_id: the id of the fetch session; 0 is none.
        partitions: those with records, an error or a new watermark; in a full answer, all of them.
    """

    throttle_ms: int
    error: int
    session_id: int
    partitions: list[PartitionAnswer]

    @classmethod
    def decode(cls, stream: BytesIO) -> Self:
        """Decode the rest of ``stream``. Raises struct.error or ValueError if it is cut."""
        raw, at = stream.getvalue(), stream.tell()  # getvalue does not copy, unlike read
        throttle, error, session, topics = _ANSWER.unpack_from(raw, at)
        at += _ANSWER.size
        found: list[PartitionAnswer] = []
        for _ in range(topics):
            end = at + _LENGTH.size + _LENGTH.unpack_from(raw, at)[0]
            topic = raw[at + _LENGTH.size : end].decode()
            (count,) = _COUNT.unpack_from(raw, end)
            at = end + _COUNT.size
            for _ in range(count):
                partition, code, highwater, stable, _start, aborts = _PART.unpack_from(raw, at)
                at += _PART.size
                aborted: list[tuple[int, int]] = []
                for _ in range(aborts):  # -1 is null
                    aborted.append(_ABORTED.unpack_from(raw, at))
                    at += _ABORTED.size
                preferred, size = _RECORDS.unpack_from(raw, at)
                at += _RECORDS.size
                size = max(size, 0)  # -1 is null
                if at + size > len(raw):
                    raise struct.error(f"{topic}-{partition}: {size} bytes of records announced, {len(raw) - at} left")
                records = raw[at : at + size]
                at += size
                found.append(PartitionAnswer(topic, partition, code, highwater, stable, aborted, preferred, records))
        return cls(throttle, error, session, found)


class FetchCall_v11(FetchRequest_v11):  # type: ignore[misc]
    """aiokafka's request with a faster encoder, and with FetchAnswer as its response."""

    API_KEY = FetchRequest_v11.API_KEY
    API_VERSION = FetchRequest_v11.API_VERSION
    SCHEMA = FetchRequest_v11.SCHEMA
    RESPONSE_TYPE = FetchAnswer

    def __init__(self, content: FetchContent, max_wait_ms: int, max_bytes: int, rack: str) -> None:
        self.content, self.max_wait_ms, self.max_bytes, self.rack = content, max_wait_ms, max_bytes, rack

    def __repr__(self) -> str:
        return f"FetchCall_v11({self.content!r})"

    def encode(self) -> bytes:
        """The bytes of the request after its header."""
        content = self.content
        head = _HEAD.pack(-1, self.max_wait_ms, 1, self.max_bytes, READ_COMMITTED, content.session_id, content.epoch)
        asked: dict[str, list[bytes]] = {}
        for (topic, partition), offset, most in content.partitions:
            asked.setdefault(topic, []).append(_ASKED.pack(partition, -1, offset, -1, most))
        forgotten: dict[str, list[bytes]] = {}
        for topic, partition in content.forgotten:
            forgotten.setdefault(topic, []).append(_COUNT.pack(partition))
        return b"".join((head, _topics(asked), _topics(forgotten), _string(self.rack)))


def _topics(parts: dict[str, list[bytes]]) -> bytes:
    found = [_COUNT.pack(len(parts))]
    for topic, each in parts.items():
        found += (_string(topic), _COUNT.pack(len(each)), *each)
    return b"".join(found)


def _string(text: str) -> bytes:
    raw = text.encode()
    return _LENGTH.pack(len(raw)) + raw


class FetchCall(Request[FetchCall_v11]):  # type: ignore[misc]
    """A fetch request of a session, as aiokafka's client takes it. It reads committed records, and waits for one byte.

    Raises NotImplementedError in ``client.send`` if the broker is older than 2.3.
    """

    API_KEY = FetchRequest_v11.API_KEY

    def __init__(self, content: FetchContent, max_wait_ms: int, max_bytes: int, rack: str) -> None:
        self._arguments = (content, max_wait_ms, max_bytes, rack)

    def build(self, request_struct_class: Any) -> Any:
        """The request for the connection's version, of which there is one."""
        return request_struct_class(*self._arguments)
