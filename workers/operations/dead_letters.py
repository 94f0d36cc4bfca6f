"""Dead letters: what each says of its event, which ones are meant, how they group, and which were replayed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from failsoft.schemas import wire
from failsoft.schemas.attempt import Attempt, parse
from failsoft.schemas.event import Envelope, decode_one, fallback_id, iso
from failsoft.schemas.failure import Failure
from failsoft.schemas.record import CONTROL_PREFIX, KIP_1191_PREFIX, Header, Origin, Record, own_headers

Life = tuple[str, int, int, int]
"""One life of an event: its origin's topic, partition and offset, and how many replays came before."""

UNREADABLE = "unreadable"
"""Stands for the kind of a dead letter whose headers no worker wrote."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. ``attempt`` is a Failure when its headers cannot be read: then nobody can say what to replay."""

    record: Record
    attempt: Attempt | Failure

    @property
    def life(self) -> Life | None:
        return _life(self.attempt) if isinstance(self.attempt, Attempt) else None

    @property
    def group(self) -> tuple[str, str | None, int | None]:
        """(kind, model, version)."""
        a = self.attempt
        return (a.failure.kind.value, a.model, a.version) if isinstance(a, Attempt) else (UNREADABLE, None, None)


def letter(record: Record) -> Letter:
    """What a record of the dead topic says."""
    return Letter(record, parse(record.headers))


def event_id(letter: Letter, envelope: Envelope) -> str:
    """The event's id, or where it came from when its value does not say."""
    r = letter.record
    origin = letter.attempt.origin if isinstance(letter.attempt, Attempt) else _place(r)
    event = decode_one(r, origin, envelope)
    return fallback_id(origin) if isinstance(event, Failure) else event.id


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters are meant: all that pass every test given. Times are epoch ms of the death."""

    kinds: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    versions: frozenset[int] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    event: str | None = None

    def passes(self, letter: Letter, envelope: Envelope) -> bool:
        """Is it meant? The id is looked at last: it costs parsing the value."""
        kind, model, version = letter.group
        at = letter.record.timestamp
        return (
            (not self.kinds or kind in self.kinds)
            and (not self.models or model in self.models)
            and (not self.versions or version in self.versions)
            and (self.since_ms is None or at >= self.since_ms)
            and (self.until_ms is None or at < self.until_ms)
            and (self.event is None or self._is_event(letter, envelope))
        )

    def _is_event(self, letter: Letter, envelope: Envelope) -> bool:
        a = letter.attempt
        place = fallback_id(a.origin) if isinstance(a, Attempt) else None
        return self.event in (place, event_id(letter, envelope))


@dataclass(slots=True)
class Replayed:
    """Which lives have been replayed: what the replay topic holds, and what was sent since."""

    lives: set[Life] = field(default_factory=set)

    def observe(self, records: Iterable[Record]) -> None:
        """Records of the replay topic. One whose headers cannot be read is no replay of ours."""
        for record in records:
            attempt = parse(record.headers)
            if isinstance(attempt, Attempt):
                self.lives.add(_life(attempt))

    def has(self, letter: Letter) -> bool:
        """Was this dead letter replayed? Its next life then exists."""
        return letter.life is not None and _next(letter.life) in self.lives

    def add(self, letter: Letter) -> None:
        """It is being replayed now; a duplicate of it (guarantee = "at_least_once") is not to be."""
        if letter.life is not None:
            self.lives.add(_next(letter.life))


def again(letter: Letter, replay_id: str) -> list[Header]:
    """The headers of a dead letter's replay: the event's own, untouched, and its history with a new life begun.

    Raises ValueError for a letter whose headers cannot be read.
    """
    if not isinstance(letter.attempt, Attempt):
        raise ValueError(letter.attempt.message)
    new = replace(
        letter.attempt, number=0, due_ms=None, replays=letter.attempt.replays + 1, replay_id=replay_id, crashes=0
    )
    return [*own_headers(letter.record.headers, dead_letter=True), *new.headers()]


@dataclass(slots=True)
class DeadLetterGroup:
    """Dead letters of one kind, model and version. Times are epoch ms; ``newest`` is the place of the last one."""

    count: int = 0
    first: int = 2**63
    last: int = -1
    replayed: int = 0
    newest: str = ""


def tally(
    groups: dict[tuple[str, str | None, int | None], DeadLetterGroup], letters: Iterable[Letter], done: Replayed
) -> None:
    """Count ``letters`` into ``groups``."""
    for each in letters:
        group = groups.setdefault(each.group, DeadLetterGroup())
        group.count += 1
        group.first = min(group.first, each.record.timestamp)
        if each.record.timestamp >= group.last:
            group.last, group.newest = each.record.timestamp, f"{each.record.partition}:{each.record.offset}"
        group.replayed += done.has(each)


def listed(groups: Mapping[tuple[str, str | None, int | None], DeadLetterGroup]) -> list[dict[str, Any]]:
    """A row a group, the largest first; ``newest`` is what ``dead show`` takes."""
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


def described(letter: Letter, envelope: Envelope, replayed: bool) -> dict[str, Any]:
    """One in full. The value is under ``json``, ``text`` or ``hex``, whichever says most; a tombstone has none."""
    r, a = letter.record, letter.attempt
    about: dict[str, Any] = {"at": f"{r.partition}:{r.offset}", "event_id": event_id(letter, envelope)}
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
        "value": _shown(r.value),
        "headers": [{"name": name, **(_shown(value, as_json=False) or {})} for name, value in own],
        "control_headers": [{"name": name, **(_shown(value, as_json=False) or {})} for name, value in control],
    }


def place(text: str) -> tuple[int, int] | None:
    """``"3:17"`` -> partition 3, offset 17 of the dead topic; None for anything else."""
    partition, colon, offset = text.partition(":")
    if not colon or not (partition.isdecimal() and offset.isdecimal()):
        return None
    return int(partition), int(offset)


def _life(attempt: Attempt) -> Life:
    o = attempt.origin
    return o.topic, o.partition, o.offset, attempt.replays


def _next(life: Life) -> Life:
    return (*life[:3], life[3] + 1)


def _place(record: Record) -> Origin:
    return Origin(record.topic, record.partition, record.offset, record.timestamp)


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
    """``letters`` in order, cut into batches of at most ``most`` and about ``bytes_most`` bytes, none empty."""
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
