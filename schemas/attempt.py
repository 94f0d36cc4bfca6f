"""Writes and reads the control headers of retry, replay and dead-letter records.

Headers are untrusted input. They are accepted only on the pipeline's own topics, and each one is checked there too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from failsoft.schemas import letter_id
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.letter_id import LetterId
from failsoft.schemas.positions import REWIND
from failsoft.schemas.record import CONTROL_PREFIX, Header, Origin, Record, own_headers

MAX_MESSAGE = 500
"""Bytes of an error message. With it, all added headers stay under 4 KiB even with topic names of 249 characters."""

_MAX_NUMBER = 2**63 - 1
_MAX_TEXT = 300
"""Bytes of one text header. A topic name has at most 249; a model's name is a folder name, at most 255. A dead letter
carries the topic twice and two other texts, which stays under 4 KiB."""
_Headers = dict[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Attempt:
    """The failure history of an event that has no final answer yet. Its retry, replay and dead records carry it.

    Attributes:
        number: retries made so far.
        origin: the record that first carried the event.
        first_failed_ms: time of the first failure (epoch milliseconds).
        failure: the newest failure.
        model: the model that failed.
        version: the version that failed; None when no version was called.
        next_revision: revision of the next answer: 0 if none was written (a malformed or invalid event, or one whose
            schema is not known), 1 after a provisional answer, higher after a final answer.
        replays: how often the event was replayed.
        replay_id: the replay that wrote this record, if one did.
        due_ms: the retry is not attempted before this time (epoch milliseconds).
        crashes: how often the model's process died while this event was in flight.
        letter: the dead letter whose replay this is; None if the event was not replayed.
        died_ms: of a dead letter: when it was written (epoch milliseconds), which is where its record is found.
        rewind: the rewind that read the event again, if one did.
    """

    number: int
    origin: Origin
    first_failed_ms: int
    failure: Failure
    model: str
    version: int | None
    next_revision: int
    replays: int = 0
    replay_id: str | None = None
    due_ms: int | None = None
    crashes: int = 0
    letter: LetterId | None = None
    died_ms: int | None = None
    rewind: str | None = None

    @property
    def provisional(self) -> bool:
        """True when the newest answer is provisional: a correction or a confirmation will follow."""
        return self.next_revision == 1

    def failed(self, failure: Failure, model: str, version: int | None, next_revision: int) -> Attempt:
        """The same history after one more failure, of ``model``: the pipeline's primary may have changed since."""
        return replace(
            self, failure=failure, model=model, version=version, next_revision=next_revision, due_ms=None, died_ms=None
        )

    def crashed(self) -> Attempt:
        """The same history after the model's process died once more with the event in flight."""
        return replace(self, crashes=self.crashes + 1)

    def replayed(self, letter: LetterId, replay_id: str) -> Attempt:
        """The history of a replay of the dead letter that carries this one. Retries and crashes start at 0."""
        return replace(
            self,
            number=0,
            replays=self.replays + 1,
            replay_id=replay_id,
            letter=letter,
            crashes=0,
            due_ms=None,
            died_ms=None,
        )

    def headers(self) -> list[Header]:
        """The control headers, in the contract's order. ``failsoft-crashes`` is omitted at 0, the usual value."""
        result: list[Header] = [
            ("failsoft-attempt", _count(self.number)),
            ("failsoft-origin-topic", self.origin.topic.encode()),
            ("failsoft-origin-partition", b"%d" % self.origin.partition),
            ("failsoft-origin-offset", b"%d" % self.origin.offset),
            ("failsoft-origin-timestamp-ms", b"%d" % self.origin.timestamp),
            ("failsoft-first-failed-ms", b"%d" % self.first_failed_ms),
            ("failsoft-error-kind", self.failure.kind.encode()),
            ("failsoft-error-message", shortened(self.failure.message)),
            ("failsoft-model", self.model.encode()),
            ("failsoft-next-revision", b"%d" % self.next_revision),
            ("failsoft-replays", _count(self.replays)),
        ]
        if self.due_ms is not None:
            result.insert(1, ("failsoft-due-ms", b"%d" % self.due_ms))
        if self.version is not None:
            result.append(("failsoft-model-version", b"%d" % self.version))
        if self.replay_id is not None:
            result.append(("failsoft-replay-id", self.replay_id.encode()))
        if self.crashes:
            result.append(("failsoft-crashes", _count(self.crashes)))
        if self.letter is not None:
            result.append(("failsoft-letter", str(self.letter).encode()))
        if self.died_ms is not None:
            result.append(("failsoft-died-ms", b"%d" % self.died_ms))
        if self.rewind is not None:
            result.append((REWIND, self.rewind.encode()))
        return result

    def dead_headers(self, group: str) -> list[Header]:
        """The control headers of a dead letter, plus the same facts under Kafka's own names (KIP-1191)."""
        return [
            *replace(self, due_ms=None).headers(),
            ("__dlq.errors.topic", self.origin.topic.encode()),
            ("__dlq.errors.partition", b"%d" % self.origin.partition),
            ("__dlq.errors.offset", b"%d" % self.origin.offset),
            ("__dlq.errors.group", group.encode()),
            ("__dlq.errors.delivery.count", b"%d" % (self.number + 1)),
            ("__dlq.errors.message", shortened(self.failure.message)),
        ]


def shortened(message: str) -> bytes:
    """``message`` as at most MAX_MESSAGE bytes of UTF-8, cut between characters."""
    return message.encode("utf-8", "replace")[:MAX_MESSAGE].decode("utf-8", "ignore").encode()


def parse(headers: Sequence[Header]) -> Attempt | Failure:
    """Read the attempt from the headers of a record on one of the pipeline's own topics.

    Returns a BAD_HEADER failure that names the header when one is missing or invalid. Each control header must occur
    once: with two values, neither could be trusted.
    """
    values: _Headers = {}
    for key, value in headers:
        if key.startswith(CONTROL_PREFIX):
            if key in values:
                return Failure(Kind.BAD_HEADER, f"{key}: given twice")
            values[key] = value
    try:
        kind = _kind(values)
        return Attempt(
            number=_number(values, "failsoft-attempt"),
            due_ms=_number(values, "failsoft-due-ms") if "failsoft-due-ms" in values else None,
            origin=_origin(values),
            first_failed_ms=_number(values, "failsoft-first-failed-ms"),
            failure=Failure(kind, _message(values)),
            model=_text(values, "failsoft-model"),
            version=_number(values, "failsoft-model-version") if "failsoft-model-version" in values else None,
            next_revision=_next_revision(values, kind),
            replays=_number(values, "failsoft-replays"),
            replay_id=_text(values, "failsoft-replay-id") if "failsoft-replay-id" in values else None,
            # Optional: workers of an older version neither write nor keep it, and both versions may run together.
            crashes=_number(values, "failsoft-crashes") if "failsoft-crashes" in values else 0,
            letter=_letter(values) if "failsoft-letter" in values else None,
            died_ms=_number(values, "failsoft-died-ms") if "failsoft-died-ms" in values else None,
            rewind=_text(values, REWIND) if REWIND in values else None,
        )
    except _BadHeader as e:
        return Failure(Kind.BAD_HEADER, str(e))


def salvage(headers: Sequence[Header], failure: Failure, fallback: Origin, model: str, now_ms: int) -> Attempt:
    """Build an attempt from headers that ``parse`` refused with ``failure``.

    Readable headers are kept. Unreadable ones get defaults: the record itself (``fallback``) as origin, and next
    revision 1. With an origin and a revision the dead letter can still be replayed.
    """
    values = dict(reversed([h for h in headers if h[0].startswith(CONTROL_PREFIX)]))
    number, replays, first, crashes = (
        _or(_number, values, name, default)
        for name, default in (
            ("failsoft-attempt", 0),
            ("failsoft-replays", 0),
            ("failsoft-first-failed-ms", now_ms),
            ("failsoft-crashes", 0),
        )
    )
    try:
        origin = _origin(values)
    except _BadHeader:
        origin = fallback
    return Attempt(
        number=number,
        origin=origin,
        first_failed_ms=first,
        failure=failure,
        model=model,
        version=None,
        next_revision=_or(_number, values, "failsoft-next-revision", 1),
        replays=replays,
        crashes=crashes,
    )


def first_headers(
    records: Sequence[Record],
    due_ms: Sequence[int],
    failure: Failure,
    model: str,
    version: int | None,
    now_ms: int,
    next_revision: int = 1,
) -> list[list[Header]]:
    """The headers of records that failed for the first time, with one common failure. ``next_revision`` is 1 where each
    has a provisional answer, and 0 where none has an answer.

    Each list is the record's own headers followed by ``Attempt(...).headers()``. The common headers are rendered once.
    """
    if not records:
        return []
    first = Attempt(0, Origin("", 0, 0, 0), now_ms, failure, model, version, next_revision)
    shared = (first.crashed() if failure.kind is Kind.CRASHED else first).headers()
    before, after = shared[:1], shared[5:]
    origin = {(r.topic, r.partition) for r in records}
    places = {
        (topic, partition): [
            ("failsoft-origin-topic", topic.encode()),
            ("failsoft-origin-partition", b"%d" % partition),
        ]
        for topic, partition in origin
    }
    return [
        [
            *(own_headers(r.headers) if r.headers else ()),
            *before,
            ("failsoft-due-ms", b"%d" % due),
            *places[r.topic, r.partition],
            ("failsoft-origin-offset", b"%d" % r.offset),
            ("failsoft-origin-timestamp-ms", b"%d" % r.timestamp),
            *after,
        ]
        for r, due in zip(records, due_ms, strict=True)
    ]


class _BadHeader(ValueError):
    pass


def _count(number: int) -> bytes:
    """A count as decimal text, capped at int64. Only a forged header can reach the cap; ``parse`` refuses more."""
    return b"%d" % min(number, _MAX_NUMBER)


def _or(read: Callable[[_Headers, str], int], values: _Headers, name: str, default: int) -> int:
    try:
        return read(values, name)
    except _BadHeader:
        return default


def _origin(values: _Headers) -> Origin:
    return Origin(
        _text(values, "failsoft-origin-topic"),
        _number(values, "failsoft-origin-partition"),
        _number(values, "failsoft-origin-offset"),
        _number(values, "failsoft-origin-timestamp-ms", lowest=-_MAX_NUMBER),  # -1 is Kafka's "absent"
    )


def _raw(values: _Headers, name: str) -> bytes:
    value = values.get(name)
    if value is None:
        raise _BadHeader(f"{name}: missing")
    return value


def _number(values: _Headers, name: str, lowest: int = 0) -> int:
    raw = _raw(values, name)
    digits = raw[1:] if raw[:1] == b"-" else raw
    if not (0 < len(digits) <= 19 and digits.isdigit()):
        raise _BadHeader(f"{name}: not a decimal number")
    number = int(raw)
    if not lowest <= number <= _MAX_NUMBER:
        raise _BadHeader(f"{name}: {number} is out of range")
    return number


def _text(values: _Headers, name: str) -> str:
    raw = _raw(values, name)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise _BadHeader(f"{name}: not UTF-8") from None
    if not 0 < len(raw) <= _MAX_TEXT:
        raise _BadHeader(f"{name}: {len(raw)} bytes; it must have 1 to {_MAX_TEXT}")
    return text


def _message(values: _Headers) -> str:
    return _raw(values, "failsoft-error-message")[:MAX_MESSAGE].decode("utf-8", "replace")


def _kind(values: _Headers) -> Kind:
    text = _text(values, "failsoft-error-kind")
    try:
        return Kind(text)
    except ValueError:
        raise _BadHeader(f"failsoft-error-kind: {text[:40]!r} is not a failure kind") from None


def _letter(values: _Headers) -> LetterId:
    text = _text(values, "failsoft-letter")
    found = letter_id.parse(text)
    if found is None:
        raise _BadHeader(f"failsoft-letter: {text[:60]!r} is not <topic id>/<partition>:<offset>")
    return found


def _next_revision(values: _Headers, kind: Kind) -> int:
    """The header's value. Records not written by failsoft may lack it: then the lowest revision the kind allows."""
    if "failsoft-next-revision" in values:
        return _number(values, "failsoft-next-revision")
    return 0 if kind in (Kind.MALFORMED, Kind.INVALID, Kind.DEPENDENCY) else 1
