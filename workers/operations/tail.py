"""Follows a pipeline's answers: all of them, or the degraded ones, or those of one event."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from failsoft.schemas import wire
from failsoft.schemas.prediction import Source
from failsoft.schemas.record import Record
from failsoft.workers.kafka import topic_reader
from failsoft.workers.settings import Settings

_PRIMARY = ("failsoft-source", Source.PRIMARY.encode())
_TEXT = frozenset({"event_id", "scored_at", "source"})
_SHOWN = _TEXT | {"score", "label", "model", "version", "reason", "revision", "final", "degraded"}
_ENSEMBLE = ("failsoft-source", Source.ENSEMBLE.encode())


@dataclass(frozen=True, slots=True)
class TailFilter:
    """Which answers to show; ``event`` is an event's id."""

    degraded: bool = False
    event: str | None = None

    def choose(self, records: Iterable[Record]) -> list[Record]:
        """The records that pass. ``degraded`` looks at a header, and at an ensemble's text, which may be whole or not;
        ``event`` parses what has the id in it.
        """
        found = [r for r in records if not self.degraded or _degraded(r)]
        if self.event is None:
            return found
        spelled = wire.dumps(self.event)
        return [r for r in found if r.value and spelled in r.value and _id(r) == self.event]


def _degraded(record: Record) -> bool:
    if _ENSEMBLE in record.headers:  # a quote within a string is escaped, so this stands nowhere else
        return b'"degraded":true' in (record.value or b"")
    return _PRIMARY not in record.headers


def _id(record: Record) -> object:
    found = _object(record)
    return None if found is None else found.get("event_id")


def answer(record: Record) -> dict[str, Any] | None:
    """The answer in a scored record; None for what no worker wrote, which anyone who may write there can leave."""
    found = _object(record)
    if found is None or not found.keys() >= _SHOWN or not all(isinstance(found[name], str) for name in _TEXT):
        return None
    return found


def _object(record: Record) -> dict[str, Any] | None:
    try:
        found = wire.loads(record.value, len(record.value or b""))
    except wire.Malformed:
        return None
    return found if isinstance(found, dict) else None


async def follow(
    pipeline: Settings, chosen: TailFilter, from_beginning: bool, limit: int | None
) -> AsyncGenerator[Sequence[Record], None]:
    """Answers as they are committed, a list at a time, until ``limit`` of them were given.

    Raises NoSuchTopic or KafkaUnreachable.
    """
    left = limit
    async with (
        topic_reader.reader(pipeline, pipeline.names.scored) as reader,
        aclosing(reader.follow(from_beginning)) as batches,
    ):
        async for records in batches:
            found = chosen.choose(records)[:left]
            if found:
                yield found
            if left is not None:
                left -= len(found)
                if left <= 0:
                    return
