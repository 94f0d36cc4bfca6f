"""Fetch requests and answers that name topics by their ids: version 13, which brokers have since 3.1 (KIP-516).

A broker answers for the topic with that id only. With names it would go on at the old offset in a topic that was
deleted and made anew, and skip the records before it in silence.
"""

from __future__ import annotations

import struct
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Self

from aiokafka.protocol.api import RequestStruct
from aiokafka.protocol.fetch import FetchRequest_v11

from failsoft.workers.kafka.fetch_protocol import READ_COMMITTED, FetchAnswer, FetchCall, FetchCall_v11, PartitionAnswer
from failsoft.workers.kafka.fetch_session import FetchContent

_HEAD = struct.Struct(">iiiibii")  # replica, max wait, min bytes, max bytes, isolation, session id, session epoch
_ASKED = struct.Struct(">iiqiqi")  # partition, leader epoch, offset, last fetched epoch, log start, max bytes
_NUMBER = struct.Struct(">i")
_ANSWER = struct.Struct(">ihi")  # throttle time, error, session id
_PART = struct.Struct(">ihqqq")  # partition, error, high watermark, last stable offset, log start
_ABORTED = struct.Struct(">qq")

_ID_BYTES = 16
_NO_TAGS = b"\0"


def id_bytes(text: str) -> bytes:
    """The 16 bytes of an id, from its 22 characters of base64."""
    return urlsafe_b64decode(text + "==")


def varint(number: int) -> bytes:
    """An unsigned number of variable length, seven bits a byte."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


class _Reader:
    """Reads an answer. Raises IndexError or struct.error if it is cut."""

    def __init__(self, raw: bytes, at: int) -> None:
        self.raw, self.at = raw, at

    def varint(self) -> int:
        number = shift = 0
        while True:
            byte = self.raw[self.at]
            self.at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7

    def unpack(self, form: struct.Struct) -> Any:
        found = form.unpack_from(self.raw, self.at)
        self.at += form.size
        return found

    def take(self, size: int) -> bytes:
        if self.at + size > len(self.raw):
            raise struct.error(f"{size} bytes announced, {len(self.raw) - self.at} left")
        self.at += size
        return self.raw[self.at - size : self.at]

    def skip_tags(self) -> None:
        for _ in range(self.varint()):
            self.varint()
            self.take(self.varint())


@dataclass(frozen=True, slots=True)
class FetchAnswerById:
    """A fetch response whose topics have no names yet."""

    raw: bytes
    at: int

    @classmethod
    def decode(cls, stream: BytesIO) -> Self:
        """Keep the rest of ``stream``."""
        return cls(stream.getvalue(), stream.tell())

    def named(self, names: Mapping[bytes, str]) -> FetchAnswer:
        """The answer, with the name of each topic. Topics that ``names`` lacks are left out.

        Raises struct.error, IndexError or ValueError if the answer is cut.
        """
        reader = _Reader(self.raw, self.at)
        throttle, error, session = reader.unpack(_ANSWER)
        found: list[PartitionAnswer] = []
        for _ in range(reader.varint() - 1):
            topic = names.get(reader.take(_ID_BYTES))
            for _ in range(reader.varint() - 1):
                part = _partition(topic or "", reader)
                if topic is not None:
                    found.append(part)
            reader.skip_tags()
        return FetchAnswer(throttle, error, session, found)


def _partition(topic: str, reader: _Reader) -> PartitionAnswer:
    partition, code, highwater, stable, _start = reader.unpack(_PART)
    aborted: list[tuple[int, int]] = []
    for _ in range(reader.varint() - 1):  # 0 is null
        aborted.append(reader.unpack(_ABORTED))
        reader.skip_tags()
    (preferred,) = reader.unpack(_NUMBER)
    records = reader.take(max(reader.varint() - 1, 0))  # 0 is null
    reader.skip_tags()
    return PartitionAnswer(topic, partition, code, highwater, stable, aborted, preferred, records)


class FetchCall_v13(RequestStruct):  # type: ignore[misc]
    """A fetch request with the ids of topics."""

    API_KEY = FetchRequest_v11.API_KEY
    API_VERSION = 13
    FLEXIBLE_VERSION = True
    SCHEMA = FetchRequest_v11.SCHEMA  # not used: ``encode`` is its own
    RESPONSE_TYPE = FetchAnswerById

    def __init__(
        self, content: FetchContent, max_wait_ms: int, max_bytes: int, rack: str, ids: Mapping[str, bytes]
    ) -> None:
        self.content, self.max_wait_ms, self.max_bytes, self.rack, self.ids = content, max_wait_ms, max_bytes, rack, ids

    def __repr__(self) -> str:
        return f"FetchCall_v13({self.content!r})"

    def encode(self) -> bytes:
        """The bytes of the request after its header. Raises KeyError for a topic without an id."""
        content = self.content
        head = _HEAD.pack(-1, self.max_wait_ms, 1, self.max_bytes, READ_COMMITTED, content.session_id, content.epoch)
        asked: dict[bytes, list[bytes]] = {}
        for (topic, partition), offset, most in content.partitions:
            row = _ASKED.pack(partition, -1, offset, -1, -1, most)
            asked.setdefault(self.ids[topic], []).append(row + _NO_TAGS)
        forgotten: dict[bytes, list[bytes]] = {}
        for topic, partition in content.forgotten:
            forgotten.setdefault(self.ids[topic], []).append(_NUMBER.pack(partition))
        rack = self.rack.encode()
        return b"".join((head, _topics(asked), _topics(forgotten), varint(len(rack) + 1), rack, _NO_TAGS))


def _topics(parts: Mapping[bytes, list[bytes]]) -> bytes:
    found = [varint(len(parts) + 1)]
    for topic_id, each in parts.items():
        found += (topic_id, varint(len(each) + 1), *each, _NO_TAGS)
    return b"".join(found)


class FetchByIdCall:
    """A fetch request, as aiokafka's client takes it: by ids where the broker knows them, else by names.

    Args:
        by_name: the request by names.
        ids: the ids of the topics; empty, or without a topic of the request: by names.
    """

    def __init__(self, by_name: FetchCall, ids: Mapping[str, bytes]) -> None:
        self._by_name, self._ids = by_name, ids

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> FetchCall_v11 | FetchCall_v13:
        """The request for a connection. Called by aiokafka with the broker's versions by API key.

        Raises NotImplementedError if the broker is older than 2.3.
        """
        call: FetchCall_v11 = self._by_name.prepare(versions)
        low, high = versions[FetchCall_v13.API_KEY]
        if not self._ids or not low <= FetchCall_v13.API_VERSION <= high:
            return call
        if any(
            topic not in self._ids for topic, *_ in (*(p for p, *_ in call.content.partitions), *call.content.forgotten)
        ):
            return call
        return FetchCall_v13(call.content, call.max_wait_ms, call.max_bytes, call.rack, self._ids)

    def read(self, answer: FetchAnswer | FetchAnswerById) -> FetchAnswer:
        """The answer with names."""
        if isinstance(answer, FetchAnswer):
            return answer
        return answer.named({topic_id: topic for topic, topic_id in self._ids.items()})
