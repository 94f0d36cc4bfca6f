"""What retry, replay and dead-letter records carry in their headers, written and read back.

Headers are untrusted input: only the pipeline's own topics may bring them, and there too each is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.record import CONTROL_PREFIX, Header, Origin, Record, own_headers

MAX_MESSAGE = 500
"""Bytes of an error's message; all headers added stay under 4 KiB with topic names at Kafka's limit of 249."""

_MAX_NUMBER = 2**63 - 1
_MAX_TEXT = 300
"""Bytes: a topic has at most 249, a model's name is a folder's. Twice a topic and two others are under 4 KiB."""
_Headers = dict[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Attempt:
    """The history of an event that has no final answer yet, as its records carry it.

    ``number`` counts the retries made so far. ``next_revision`` is the revision that the next answer takes: 0 when
    none was given (the event was malformed or invalid), 1 when a provisional one was, more when a final one was.
    ``crashes`` counts the times that the model's process died with it in flight. Times are epoch milliseconds.
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

    @property
    def provisional(self) -> bool:
        """The newest answer awaits a correction or a confirmation."""
        return self.next_revision == 1

    def failed(self, failure: Failure, model: str, version: int | None, next_revision: int) -> Attempt:
        """The same history after one more failure, of ``model`` (a pipeline's primary may be another by now)."""
        return replace(self, failure=failure, model=model, version=version, next_revision=next_revision, due_ms=None)

    def crashed(self) -> Attempt:
        """The same history after one more death with it in flight."""
        return replace(self, crashes=self.crashes + 1)

    def headers(self) -> list[Header]:
        """The control headers, in the contract's order. ``failsoft-crashes`` is absent at 0, which nearly all have."""
        found: list[Header] = [
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
            found.insert(1, ("failsoft-due-ms", b"%d" % self.due_ms))
        if self.version is not None:
            found.append(("failsoft-model-version", b"%d" % self.version))
        if self.replay_id is not None:
            found.append(("failsoft-replay-id", self.replay_id.encode()))
        if self.crashes:
            found.append(("failsoft-crashes", _count(self.crashes)))
        return found

    def dead_headers(self, group: str) -> list[Header]:
        """The control headers of a dead letter, and beside them Kafka's own names for the same (KIP-1191)."""
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
    """At most MAX_MESSAGE bytes of UTF-8, cut between characters."""
    return message.encode("utf-8", "replace")[:MAX_MESSAGE].decode("utf-8", "ignore").encode()


def parse(headers: Sequence[Header]) -> Attempt | Failure:
    """The attempt that a record of the pipeline's own topics carries, or a BAD_HEADER failure that names the header.

    Control headers must be there once each: a duplicate would leave open which is true.
    """
    found: _Headers = {}
    for key, value in headers:
        if key.startswith(CONTROL_PREFIX):
            if key in found:
                return Failure(Kind.BAD_HEADER, f"{key}: given twice")
            found[key] = value
    try:
        kind = _kind(found)
        return Attempt(
            number=_number(found, "failsoft-attempt"),
            due_ms=_number(found, "failsoft-due-ms") if "failsoft-due-ms" in found else None,
            origin=_origin(found),
            first_failed_ms=_number(found, "failsoft-first-failed-ms"),
            failure=Failure(kind, _message(found)),
            model=_text(found, "failsoft-model"),
            version=_number(found, "failsoft-model-version") if "failsoft-model-version" in found else None,
            next_revision=_next_revision(found, kind),
            replays=_number(found, "failsoft-replays"),
            replay_id=_text(found, "failsoft-replay-id") if "failsoft-replay-id" in found else None,
            # A worker of an older version neither writes nor keeps it, and both versions run side by side.
            crashes=_number(found, "failsoft-crashes") if "failsoft-crashes" in found else 0,
        )
    except _BadHeader as e:
        return Failure(Kind.BAD_HEADER, str(e))


def salvage(headers: Sequence[Header], failure: Failure, fallback: Origin, model: str, now_ms: int) -> Attempt:
    """The attempt of a record whose headers are in ``failure``: what can be read of them, and for the rest the record
    itself as origin and one answer given, so that a replay finds its event again.
    """
    found = dict(reversed([h for h in headers if h[0].startswith(CONTROL_PREFIX)]))
    number, replays, first, crashes = (
        _or(_number, found, name, default)
        for name, default in (
            ("failsoft-attempt", 0),
            ("failsoft-replays", 0),
            ("failsoft-first-failed-ms", now_ms),
            ("failsoft-crashes", 0),
        )
    )
    try:
        origin = _origin(found)
    except _BadHeader:
        origin = fallback
    return Attempt(
        number=number,
        origin=origin,
        first_failed_ms=first,
        failure=failure,
        model=model,
        version=None,
        next_revision=_or(_number, found, "failsoft-next-revision", 1),
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
) -> list[list[Header]]:
    """The headers of records that failed for the first time, all for one reason and each with a provisional answer:
    own headers and then ``Attempt(...).headers()``, with what they share rendered once.
    """
    if not records:
        return []
    first = Attempt(0, Origin("", 0, 0, 0), now_ms, failure, model, version, next_revision=1)
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
    """A count that only a forged header can bring to its limit stays there: one more could not be read back."""
    return b"%d" % min(number, _MAX_NUMBER)


def _or(read: Callable[[_Headers, str], int], found: _Headers, name: str, default: int) -> int:
    try:
        return read(found, name)
    except _BadHeader:
        return default


def _origin(found: _Headers) -> Origin:
    return Origin(
        _text(found, "failsoft-origin-topic"),
        _number(found, "failsoft-origin-partition"),
        _number(found, "failsoft-origin-offset"),
        _number(found, "failsoft-origin-timestamp-ms", lowest=-_MAX_NUMBER),  # -1 is Kafka's "absent"
    )


def _raw(found: _Headers, name: str) -> bytes:
    value = found.get(name)
    if value is None:
        raise _BadHeader(f"{name}: missing")
    return value


def _number(found: _Headers, name: str, lowest: int = 0) -> int:
    raw = _raw(found, name)
    digits = raw[1:] if raw[:1] == b"-" else raw
    if not (0 < len(digits) <= 19 and digits.isdigit()):
        raise _BadHeader(f"{name}: not a decimal number")
    number = int(raw)
    if not lowest <= number <= _MAX_NUMBER:
        raise _BadHeader(f"{name}: {number} is out of range")
    return number


def _text(found: _Headers, name: str) -> str:
    raw = _raw(found, name)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise _BadHeader(f"{name}: not UTF-8") from None
    if not 0 < len(raw) <= _MAX_TEXT:
        raise _BadHeader(f"{name}: {len(raw)} bytes; it must have 1 to {_MAX_TEXT}")
    return text


def _message(found: _Headers) -> str:
    return _raw(found, "failsoft-error-message")[:MAX_MESSAGE].decode("utf-8", "replace")


def _kind(found: _Headers) -> Kind:
    text = _text(found, "failsoft-error-kind")
    try:
        return Kind(text)
    except ValueError:
        raise _BadHeader(f"failsoft-error-kind: {text[:40]!r} is no failure kind") from None


def _next_revision(found: _Headers, kind: Kind) -> int:
    """A record made by other hands may lack it: then what the kind implies, the fewest answers that it allows."""
    if "failsoft-next-revision" in found:
        return _number(found, "failsoft-next-revision")
    return 0 if kind in (Kind.MALFORMED, Kind.INVALID) else 1
