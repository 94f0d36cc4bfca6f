"""Follows a pipeline's answers: all, only the degraded ones, or those of one event."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from failsoft.schemas import scored_read, wire
from failsoft.schemas.prediction import Source
from failsoft.schemas.record import Record
from failsoft.schemas.scored_read import NoAvroReader, is_avro
from failsoft.workers.kafka import topic_reader
from failsoft.workers.settings import Settings

_PRIMARY = ("failsoft-source", Source.PRIMARY.encode())
_TEXT = frozenset({"event_id", "scored_at", "source"})
_SHOWN = _TEXT | {"score", "label", "model", "version", "reason", "revision", "final", "degraded"}
_ENSEMBLE = ("failsoft-source", Source.ENSEMBLE.encode())


@dataclass(frozen=True, slots=True)
class TailFilter:
    """Selects the answers to show.

    Attributes:
        degraded: only degraded answers.
        event: only the answers to the event with this id.
    """

    degraded: bool = False
    event: str | None = None

    def choose(self, records: Iterable[Record]) -> list[Record]:
        """The matching records. To save parsing, ``degraded`` reads a header (for an ensemble, the value's text), and
        ``event`` parses only values that contain the id.
        """
        selected = [r for r in records if not self.degraded or _degraded(r)]
        if self.event is None:
            return selected
        in_json, in_avro = wire.dumps(self.event), self.event.encode()
        return [
            r
            for r in selected
            if r.value and (in_avro if is_avro(r.value) else in_json) in r.value and _id(r) == self.event
        ]


def _degraded(record: Record) -> bool:
    if _ENSEMBLE in record.headers:  # quotes inside a JSON string are escaped, so only the field itself matches
        if is_avro(record.value):
            return (_object(record) or {}).get("degraded") is True
        return b'"degraded":true' in (record.value or b"")
    return _PRIMARY not in record.headers


def _id(record: Record) -> object:
    parsed = _object(record)
    return None if parsed is None else parsed.get("event_id")


def answer(record: Record) -> dict[str, Any] | None:
    """The answer in a scored record; None for any other record, because other programs may write to the topic too."""
    parsed = _object(record)
    if parsed is None or not parsed.keys() >= _SHOWN or not all(isinstance(parsed[name], str) for name in _TEXT):
        return None
    return parsed


def line(record: Record) -> bytes:
    """A scored record as one line of JSON: its value, if that is no answer in Avro."""
    if is_avro(record.value) and (parsed := _object(record)) is not None:
        return wire.dumps(parsed)
    return record.value or b"null"


def _object(record: Record) -> dict[str, Any] | None:
    try:
        parsed = scored_read.loads(record.value, len(record.value or b""))
    except NoAvroReader:
        raise
    except wire.Malformed:
        return None
    return parsed if isinstance(parsed, dict) else None


async def follow(
    pipeline: Settings, chosen: TailFilter, from_beginning: bool, limit: int | None
) -> AsyncGenerator[Sequence[Record], None]:
    """Yields lists of answers as they are committed, until ``limit`` answers were yielded.

    Raises NoSuchTopic or KafkaUnreachable; NoAvroReader for answers in Avro without the extra.
    """
    left = limit
    async with (
        topic_reader.reader(pipeline, pipeline.names.scored) as reader,
        aclosing(reader.follow(from_beginning)) as batches,
    ):
        async for records in batches:
            answers = chosen.choose(records)[:left]
            if answers:
                yield answers
            if left is not None:
                left -= len(answers)
                if left <= 0:
                    return
