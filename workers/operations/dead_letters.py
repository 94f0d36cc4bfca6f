"""Dead letters: parsing, filtering, grouping, and the headers of their replays. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from failsoft.schemas import json_events, wire
from failsoft.schemas.attempt import Attempt, parse
from failsoft.schemas.decoding import best_id
from failsoft.schemas.event import NO_READERS, Envelope, Readers, fallback_id, iso
from failsoft.schemas.failure import Failure
from failsoft.schemas.formats.reader import Undecodable
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.schemas.letter_id import LetterId
from failsoft.schemas.record import CONTROL_PREFIX, KIP_1191_PREFIX, Header, Origin, Record, own_headers
from failsoft.schemas.unwrapping import SchemaData, unwrap
from failsoft.topics.replayed import Replayed

UNREADABLE = "unreadable"
"""Shown as the kind of a dead letter whose headers cannot be parsed."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter.

    Attributes:
        record: the record of the dead topic.
        attempt: the parsed headers; a Failure if they cannot be parsed, and then the letter cannot be replayed.
        id: the letter's identity.
    """

    record: Record
    attempt: Attempt | Failure
    id: LetterId

    def was_replayed(self, done: Replayed) -> bool:
        """Is a replay of this letter among ``done``? A letter whose headers cannot be parsed never was."""
        return isinstance(self.attempt, Attempt) and done.has(self.id, self.attempt, self.record.timestamp)

    @property
    def group(self) -> tuple[str, str | None, int | None]:
        """The group for counting: (kind, model, version)."""
        a = self.attempt
        return (a.failure.kind.value, a.model, a.version) if isinstance(a, Attempt) else (UNREADABLE, None, None)


def letter(record: Record, topic_id: str | None) -> Letter:
    """Parses a record of the dead topic, whose id is ``topic_id``."""
    return Letter(record, parse(record.headers), LetterId(topic_id, record.partition, record.offset))


def event_id(letter: Letter, envelope: Envelope, readers: Readers = NO_READERS) -> str:
    """The event's id, or its origin (``topic-partition-offset``) when it has none that can be read."""
    r = letter.record
    origin = letter.attempt.origin if isinstance(letter.attempt, Attempt) else _place(r)
    return best_id(r, origin, envelope, readers)


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Selects the dead letters that match every condition given; an empty set or None matches all.

    Attributes:
        kinds: failure kinds.
        models: names of models.
        versions: version numbers.
        since_ms: died at or after this time (epoch ms).
        until_ms: died before this time (epoch ms).
        event: the event's id or origin.
    """

    kinds: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    versions: frozenset[int] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    event: str | None = None

    def passes(self, letter: Letter, envelope: Envelope, readers: Readers = NO_READERS) -> bool:
        """Does ``letter`` match? The event's id is compared last, because that parses the value."""
        kind, model, version = letter.group
        at = letter.record.timestamp
        return (
            (not self.kinds or kind in self.kinds)
            and (not self.models or model in self.models)
            and (not self.versions or version in self.versions)
            and (self.since_ms is None or at >= self.since_ms)
            and (self.until_ms is None or at < self.until_ms)
            and (self.event is None or self._is_event(letter, envelope, readers))
        )

    def _is_event(self, letter: Letter, envelope: Envelope, readers: Readers) -> bool:
        a = letter.attempt
        origin = fallback_id(a.origin) if isinstance(a, Attempt) else None
        return self.event in (origin, event_id(letter, envelope, readers))


def again(letter: Letter, replay_id: str) -> list[Header]:
    """The headers of a dead letter's replay: the event's own headers unchanged, and new control headers.

    The retries and crashes start at 0, the number of replays grows by 1, and there is no due time. The replay names the
    letter, which is how others know that it was replayed.

    Raises ValueError for a letter whose headers cannot be read.
    """
    if not isinstance(letter.attempt, Attempt):
        raise ValueError(letter.attempt.message)
    new = letter.attempt.replayed(letter.id, replay_id)
    return [*own_headers(letter.record.headers, dead_letter=True), *new.headers()]


@dataclass(slots=True)
class DeadLetterGroup:
    """Counts of the dead letters of one kind, model and version.

    Attributes:
        count: dead letters.
        first: time of the first death (epoch ms).
        last: time of the last death (epoch ms).
        replayed: dead letters that were replayed.
        newest: ``partition:offset`` of the last dead letter in the dead topic.
    """

    count: int = 0
    first: int = 2**63
    last: int = -1
    replayed: int = 0
    newest: str = ""


def tally(
    groups: dict[tuple[str, str | None, int | None], DeadLetterGroup], letters: Iterable[Letter], done: Replayed
) -> None:
    """Counts ``letters`` into ``groups``."""
    for each in letters:
        group = groups.setdefault(each.group, DeadLetterGroup())
        group.count += 1
        group.first = min(group.first, each.record.timestamp)
        if each.record.timestamp >= group.last:
            group.last, group.newest = each.record.timestamp, f"{each.record.partition}:{each.record.offset}"
        group.replayed += each.was_replayed(done)


def listed(groups: Mapping[tuple[str, str | None, int | None], DeadLetterGroup]) -> list[dict[str, Any]]:
    """One table line a group, the largest first. ``newest`` can be passed to ``failsoft dead show``."""
    ordered = sorted(groups.items(), key=lambda item: (-item[1].count, str(item[0])))
    return [
        {
            "kind": kind,
            "model": model,
            "version": version,
            "count": g.count,
            "replayed": g.replayed,
            "first": iso(g.first),
            "last": iso(g.last),
            "newest": g.newest,
        }
        for (kind, model, version), g in ordered
    ]


def described(letter: Letter, envelope: Envelope, replayed: bool, readers: Readers = NO_READERS) -> dict[str, Any]:
    """One dead letter in full, as a JSON object. ``readers`` has those of the schemas that such events name.

    The event's value is under ``json`` if it can be decoded, else under ``text`` or ``hex``. If it names a schema, this
    is under ``schema``, and why it cannot be decoded by it under ``problem``. It is None for a tombstone.
    """
    r, a = letter.record, letter.attempt
    about: dict[str, Any] = {"at": f"{r.partition}:{r.offset}", "event_id": event_id(letter, envelope, readers)}
    if isinstance(a, Attempt):
        about |= {
            "kind": a.failure.kind,
            "message": a.failure.message,
            "model": a.model,
            "version": a.version,
            "retries": a.number,
            "replays": a.replays,
            "crashes": a.crashes,
            "replay_id": a.replay_id,
            "replay_of": None if a.letter is None else a.letter.place,
            "origin": {"topic": a.origin.topic, "partition": a.origin.partition, "offset": a.origin.offset},
            "event_timestamp": iso(a.origin.timestamp),
            "first_failed": iso(a.first_failed_ms),
        }
    else:
        about |= {"kind": UNREADABLE, "message": a.message}
    own = own_headers(r.headers, dead_letter=True)
    control = [h for h in r.headers if h[0].startswith((CONTROL_PREFIX, KIP_1191_PREFIX))]
    return about | {
        "died": iso(r.timestamp),
        "replayed": replayed,
        "key": _shown(r.key, as_json=False),
        "value": _value(r, envelope, readers),
        "headers": [{"name": name, **(_shown(value, as_json=False) or {})} for name, value in own],
        "control_headers": [{"name": name, **(_shown(value, as_json=False) or {})} for name, value in control],
    }


def place(text: str) -> tuple[int, int] | None:
    """Parses ``"3:17"`` as partition 3, offset 17 of the dead topic; returns None for anything else."""
    partition, colon, offset = text.partition(":")
    if not colon or not (partition.isdecimal() and offset.isdecimal()):
        return None
    return int(partition), int(offset)


def _place(record: Record) -> Origin:
    return Origin(record.topic, record.partition, record.offset, record.timestamp)


def _value(record: Record, envelope: Envelope, readers: Readers) -> dict[str, Any] | None:
    """The value for people, and the schema that it names."""
    if record.value is None:
        return None
    try:
        data = unwrap(record, envelope)
    except wire.Malformed as e:
        unframed = {} if envelope.format is WireFormat.JSON else {"problem": str(e)}
        return unframed | (_shown(record.value) or {})
    if not isinstance(data, SchemaData):
        bare = json_events.bare(record.value)
        shown = _shown(bare) or {}
        return shown if "json" in shown or bare == record.value else {"hex": record.value.hex()}
    reader = readers.get(data.ref)
    if isinstance(reader, Failure):
        problem = reader.message
    elif reader is None:
        problem = "the schema was not looked up"
    else:
        try:
            return {"schema": data.ref, "json": reader.value(data.payload)}
        except Undecodable as e:
            problem = str(e)
    return {"schema": data.ref, "problem": problem, "hex": record.value.hex()}


def _shown(raw: bytes | None, as_json: bool = True) -> dict[str, Any] | None:
    if raw is None:
        return None
    if as_json:
        try:
            return {"json": wire.loads(raw, len(raw))}
        except wire.Malformed:
            pass
    try:
        return {"text": raw.decode()}
    except UnicodeDecodeError:
        return {"hex": raw.hex()}


def bounded(letters: Sequence[Letter], most: int, bytes_most: int) -> list[list[Letter]]:
    """Cuts ``letters``, in order, into batches of at most ``most`` letters and ``bytes_most`` bytes of keys and values.

    No batch is empty: a letter larger than ``bytes_most`` is a batch of its own.
    """
    batches: list[list[Letter]] = []
    size = 0
    for each in letters:
        own = len(each.record.value or b"") + len(each.record.key or b"")
        if not batches or len(batches[-1]) >= most or size + own > bytes_most:
            batches.append([])
            size = 0
        batches[-1].append(each)
        size += own
    return batches
