"""The positions that a lane's outputs carry: where the lane stands in each topic once they are committed.

The last record that a transaction writes to a partition has them in a header. So the log of answers remembers how far
each topic was answered, also when the group's offsets are lost (docs/decisions/0018-second-memory.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from failsoft.schemas import scored_read, wire
from failsoft.schemas.record import Header

POSITIONS = "failsoft-positions"
"""The header: a JSON object of topics, each with the offset after the last record that is answered."""

REWIND = "failsoft-rewind"
"""The header of each record that a rewind (``failsoft offsets rewind``) has caused: the rewind's id."""

_MOST_BYTES = 1_000_000
"""A header with more is not ours: a topic takes at most 270 bytes."""

_ENTRY = b'"offset":'


def key(topic: str, topic_id: str | None) -> str:
    """What a topic's position is kept under: its name, and its id where the cluster has ids. A topic that was deleted
    and made anew has another id, and its records have nothing to do with the former ones. No name has a colon.
    """
    return topic if topic_id is None else f"{topic}:{topic_id}"


def topic_of(key: str) -> str:
    """The topic of a ``key``."""
    return key.partition(":")[0]


def position(positions: Mapping[str, int], topic: str, topic_id: str | None) -> int | None:
    """The position in a topic, by its id if that is known; None if there is none. Of several it is the furthest: one
    without an id is of an earlier version's answers, which may have come after those with it.
    """
    names = {key(topic, topic_id), topic}
    known = [at for name, at in positions.items() if name in names or (topic_id is None and topic_of(name) == topic)]
    return max(known, default=None)


def header(positions: Mapping[str, int]) -> Header:
    """``positions``, offsets by ``key``, as a header."""
    return POSITIONS, wire.dumps(dict(sorted(positions.items())))


def read(headers: Sequence[Header]) -> dict[str, int] | None:
    """The positions in the headers of a record. None if there are none, or if another program wrote them."""
    for name, value in headers:
        if name == POSITIONS and value is not None:
            try:
                found = wire.loads(value, _MOST_BYTES)
            except wire.Malformed:
                return None
            if isinstance(found, dict) and all(type(at) is int and at >= 0 for at in found.values()):
                return found
    return None


def furthest(several: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """For each topic the largest of several positions."""
    found: dict[str, int] = {}
    for positions in several:
        for topic, at in positions.items():
            found[topic] = max(at, found.get(topic, 0))
    return found


def origin_of(value: bytes | None, headers: Sequence[Header]) -> tuple[str, int] | None:
    """The topic and offset of the event that an output of the pipeline is about. None if another program wrote it.

    A retry or dead letter has them in headers, an answer in its value.
    """
    named = {name: raw for name, raw in headers if name.startswith("failsoft-origin-")}
    topic, offset = named.get("failsoft-origin-topic"), named.get("failsoft-origin-offset")
    if topic is not None and offset is not None and offset.isdigit() and len(offset) <= 19:
        return topic.decode("utf-8", "replace"), int(offset)
    if value is None or not (_ENTRY in value or scored_read.is_avro(value)):
        return None
    try:
        answer: Any = scored_read.loads(value, _MOST_BYTES)
    except wire.Malformed:
        return None
    origin = answer.get("origin") if isinstance(answer, dict) else None
    if not isinstance(origin, dict):
        return None
    topic, offset = origin.get("topic"), origin.get("offset")
    return (topic, offset) if isinstance(topic, str) and type(offset) is int and offset >= 0 else None
