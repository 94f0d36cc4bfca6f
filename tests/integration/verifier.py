"""Settles every event that was published: what became of it, and which promise of CONTRACT.md was broken if any.

An independent reading of the contract: it reads with confluent-kafka (``isolation.level=read_committed``), and nothing
here is imported from the packages under test.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

Header = tuple[str, bytes | None]
Place = tuple[str, int, int]
"""Topic, partition and offset of an event on an input topic."""

AT_ONCE = {"malformed", "invalid", "bad_header", "poison"}
NEVER_ANSWERED = {"malformed", "invalid"}
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
ADDED_AT_MOST = 4096
"""Bytes of headers that failsoft may add to a record."""

ROUNDING_MS = 2
"""A due time is rounded to a millisecond, and so is the time that it is reckoned from."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A record as it lies on a topic; ``headers`` in order, duplicates and all."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]

    @property
    def place(self) -> Place:
        return self.topic, self.partition, self.offset

    def header(self, name: str) -> str | None:
        """A control header's text; None when it is not there exactly once."""
        found = [v for k, v in self.headers if k == name]
        return (found[0] or b"").decode() if len(found) == 1 else None

    def number(self, name: str) -> int:
        return int(self.header(name) or "")


@dataclass
class Reader:
    """A careful reader of several topics from their beginning. ``records`` grows by ``poll``."""

    bootstrap: str
    topics: Sequence[str]
    partitions: int
    records: dict[str, list[Seen]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._all = {(t, p) for t in self.topics for p in range(self.partitions)}
        self._ended: set[tuple[str | None, int | None]] = set()
        self._consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": f"verifier-{uuid.uuid4()}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 50,
                "reconnect.backoff.max.ms": 500,
                "log_level": 2,
            }
        )
        self._consumer.assign([TopicPartition(t, p, OFFSET_BEGINNING) for t, p in sorted(self._all)])

    def close(self) -> None:
        self._consumer.close()

    def until(self, fact: Callable[[], object], timeout: float, what: str) -> None:
        """Reads on until ``fact`` holds; AssertionError after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not fact():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {timeout:g} s for {what}; read so far: {self.counts()}")
            self._poll()

    def to_the_end(self, timeout: float = 40.0) -> None:
        """Reads every topic to its end: a duplicate that is written already is seen too."""
        self._ended.clear()
        after = dict.fromkeys(self._all, OFFSET_BEGINNING)
        for records in self.records.values():
            after.update({(r.topic, r.partition): r.offset + 1 for r in records})
        # Assigned anew, because an end is told only once, when it is reached.
        self._consumer.assign([TopicPartition(t, p, offset) for (t, p), offset in sorted(after.items())])
        self.until(lambda: self._ended >= self._all, timeout, "the end of every topic")

    def counts(self) -> dict[str, int]:
        return {topic: len(self.records[topic]) for topic in self.topics}

    def _poll(self) -> None:
        for message in self._consumer.consume(2000, timeout=0.05):
            error, where = message.error(), (message.topic(), message.partition())
            if error is None:
                self._ended.discard(where)
                self.records[str(where[0])].append(_seen(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ended.add(where)
            elif not error.retriable() and error.code() not in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
                raise AssertionError(f"reading {where} failed: {error}")


def _seen(m: Message) -> Seen:
    headers = m.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    return Seen(
        str(m.topic()),
        m.partition() or 0,
        m.offset() or 0,
        m.timestamp()[1],
        m.key(),  # type: ignore[arg-type]
        m.value(),
        tuple((k, v.encode() if isinstance(v, str) else v) for k, v in pairs),
    )


@dataclass
class Settlement:
    """Everything that a pipeline wrote, held against everything that its input topics hold.

    ``delays`` are the ladder's, as the pipeline file writes them; ``jitter`` likewise. ``forged`` are values that a
    test wrote on the pipeline's own topics by itself.
    """

    bootstrap: str
    name: str
    inputs: Sequence[str]
    delays: Sequence[str]
    jitter: float = 0.1
    partitions: int = 4
    forged: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.scored, self.dead, self.replay = f"{self.name}.scored", f"{self.name}.dead", f"{self.name}.replay"
        self.rungs = [f"{self.name}.retry.{d}" for d in self.delays]
        own = [self.scored, self.dead, *self.rungs, self.replay]
        self.reader = Reader(self.bootstrap, [*self.inputs, *own], self.partitions)

    def close(self) -> None:
        self.reader.close()

    # --- while it runs ---

    def answered(self) -> int:
        """First answers and events that never get one, as far as they were read."""
        return sum(1 for r in self.reader.records[self.scored] if r.header("failsoft-revision") == "0") + sum(
            1 for r in self.reader.records[self.dead] if r.header("failsoft-error-kind") in NEVER_ANSWERED
        )

    def wait_answered(self, n: int, timeout: float = 60.0) -> None:
        self.reader.until(lambda: self.answered() >= n, timeout, f"{n} first answers")

    def wait_final(self, n: int, timeout: float = 60.0) -> None:
        """Until ``n`` events have their last word."""
        self.reader.until(lambda: self._final() >= n, timeout, f"{n} final answers (now {self._final()})")

    def _final(self) -> int:
        final = sum(1 for r in self.reader.records[self.scored] if b'"final":true' in (r.value or b""))
        at_once = (r for r in self.reader.records[self.dead] if r.header("failsoft-error-kind") in NEVER_ANSWERED)
        return final + sum(1 for _ in at_once)

    # --- the verdict ---

    def verdict(self) -> Verdict:
        """Reads to the end, and judges each event."""
        self.reader.to_the_end()
        return judge(self.reader.records, self.inputs, self.name, self.delays, self.jitter, self.forged)


@dataclass
class Verdict:
    """``broken`` has, by promise, what broke it; ``fates`` what became of each event; ``ids`` who is where."""

    broken: dict[str, list[str]]
    fates: dict[Place, str]
    ids: dict[Place, str]

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.fates.values())

    def __str__(self) -> str:
        said = [f"{k}: {len(v)}, such as {v[:3]}" for k, v in self.broken.items()]
        return "\n".join(said) or f"kept: {dict(self.counts)}"


def judge(
    records: Mapping[str, Sequence[Seen]],
    inputs: Sequence[str],
    name: str,
    delays: Sequence[str],
    jitter: float,
    forged: Container[bytes] = (),
) -> Verdict:
    """What became of each event, and what of the promise was broken, by all records of the topics."""
    return _Judge(records, inputs, name, delays, jitter, forged).verdict()


class _Judge:
    def __init__(
        self,
        records: Mapping[str, Sequence[Seen]],
        inputs: Sequence[str],
        name: str,
        delays: Sequence[str],
        jitter: float,
        forged: Container[bytes],
    ) -> None:
        self.delays, self.jitter, self.forged = delays, jitter, forged
        self.dead, self.rungs = f"{name}.dead", [f"{name}.retry.{d}" for d in delays]
        self.broken: dict[str, list[str]] = defaultdict(list)
        self.events = {r.place: r for topic in inputs for r in records[topic]}
        self.answers: dict[Place, list[tuple[Seen, dict[str, Any]]]] = defaultdict(list)
        self.steps: dict[Place, list[Seen]] = defaultdict(list)
        self.letters: dict[Place, list[Seen]] = defaultdict(list)
        for r in records[f"{name}.scored"]:
            body = json.loads(r.value or b"")
            origin = body["origin"]
            self._file(self.answers, (origin["topic"], origin["partition"], origin["offset"]), r, (r, body))
        for topic in self.rungs:
            for r in self._ours(records[topic]):
                self._file(self.steps, _origin(r), r, r)
        for r in self._ours(records[self.dead]):
            self._file(self.letters, _origin(r), r, r)

    def _ours(self, records: Iterable[Seen]) -> Iterable[Seen]:
        return (r for r in records if (r.value or b"") not in self.forged)

    def _file(self, into: dict[Place, list[Any]], place: Place, record: Seen, what: object) -> None:
        if place not in self.events:
            self.say("stray", place, f"{record.topic} has a record of an event that is on no input topic")
            return
        into[place].append(what)

    def say(self, promise: str, place: Place, text: str) -> None:
        self.broken[promise].append(f"{place[0]}-{place[1]}-{place[2]}: {text}")

    def verdict(self) -> Verdict:
        fates: dict[Place, str] = {}
        ids: dict[Place, str] = {}
        for place, event in self.events.items():
            answers = sorted(self.answers[place], key=lambda a: (a[1]["revision"], a[0].offset))
            fates[place] = self._settle(place, event, answers)
            if answers:
                ids[place] = answers[0][1]["event_id"]
        return Verdict(dict(self.broken), fates, ids)

    def _settle(self, place: Place, event: Seen, answers: list[tuple[Seen, dict[str, Any]]]) -> str:
        steps = sorted(self.steps[place], key=lambda r: r.number("failsoft-attempt"))
        letters = self.letters[place]
        for record, body in answers:
            self._answer(place, event, record, body)
        for record in (*steps, *letters):
            self._evidence(place, event, record)
        self._ladder(place, event, steps, answers, letters)
        revisions = Counter(body["revision"] for _, body in answers)
        kinds = [r.header("failsoft-error-kind") or "?" for r in letters]
        for what, n in (("revision 0", revisions[0]), ("revision 1", revisions[1]), ("dead letter", len(letters))):
            if n > 1:
                self.say("doubled", place, f"{n} times {what}")
        if revisions.keys() - {0, 1}:
            self.say("doubled", place, f"revisions {sorted(revisions)}")
        unanswered = bool(kinds) and kinds[0] in NEVER_ANSWERED and not steps
        if unanswered:
            if answers:
                self.say("doubled", place, f"answered, though {kinds[0]}")
            return f"dead: {kinds[0]}"
        if not revisions[0]:
            self.say("lost", place, "no first answer")
            return "lost"
        first = next(body for _, body in answers if body["revision"] == 0)
        last = answers[-1][1]
        if first["final"] and revisions[1]:
            self.say("doubled", place, "an answer after the final one")
        if not first["final"] and not revisions[1]:
            self.say("never final", place, f"provisional ({first['reason']}), and nothing after it")
            return "never final"
        if not last["final"]:
            self.say("never final", place, "the last answer is not final")
        return self._fate(place, first, last, kinds, steps)

    def _fate(
        self, place: Place, first: dict[str, Any], last: dict[str, Any], kinds: list[str], steps: list[Seen]
    ) -> str:
        exhausted = last["reason"] is not None and last["reason"] != "low_confidence"
        if exhausted != bool(kinds):
            self.say("inconsistent", place, f"the last answer's reason is {last['reason']}, dead letters: {kinds}")
        if exhausted and kinds and kinds[0] not in AT_ONCE and len(steps) != len(self.delays):
            self.say("inconsistent", place, f"given up after {len(steps)} of {len(self.delays)} retries")
        if first["final"]:
            return "primary" if first["source"] == "primary" else f"fallback: {first['reason']}"
        if not steps:
            self.say("inconsistent", place, "a provisional answer, and no retry")
        return "corrected" if last["source"] == "primary" else f"confirmed: {last['reason']}"

    def _answer(self, place: Place, event: Seen, record: Seen, body: dict[str, Any]) -> None:
        """Promise 5, and what the contract says of the scored record."""
        if record.partition != place[1]:
            self.say("wrong partition", place, f"{record.topic} {record.partition}")
        if record.key != event.key:
            self.say("altered", place, f"key {record.key!r}")
        if _trace(record) != _trace(event):
            self.say("untraced", place, f"{record.topic}: {_trace(record)}")
        degraded = body["source"] != "primary"
        if body["degraded"] is not degraded or (body["reason"] is not None) is not degraded:
            self.say("silent", place, f"source {body['source']}, degraded {body['degraded']}, reason {body['reason']}")
        told = (record.header("content-type"), record.header("failsoft-revision"), record.header("failsoft-source"))
        if told != ("application/json", str(body["revision"]), body["source"]):
            self.say("inconsistent", place, f"headers {told}")

    def _evidence(self, place: Place, event: Seen, record: Seen) -> None:
        """Promise 6: the record carries the event's key, value and own headers byte for byte, and little else."""
        if record.partition != place[1]:
            self.say("wrong partition", place, f"{record.topic} {record.partition}")
        if (record.key, record.value) != (event.key, event.value):
            self.say("altered", place, f"{record.topic}: key {record.key!r}, value {(record.value or b'')[:80]!r}")
        letter = record.topic == self.dead
        own, kept = _own(event, letter), _own(record, letter)
        if own != kept:
            self.say("altered", place, f"{record.topic}: headers {kept}, where {own} were published")
        added = record.headers[len(kept) :]
        names = Counter(k for k, _ in added)
        if any(n > 1 for n in names.values()):
            self.say("altered", place, f"{record.topic}: control headers given twice: {names}")
        size = sum(len(k.encode()) + len(v or b"") + 10 for k, v in added)
        message = len(record.header("failsoft-error-message") or "")
        if size > ADDED_AT_MOST or message > 500:
            self.say("inconsistent", place, f"{record.topic}: {size} bytes of headers added, a message of {message}")
        if int(record.header("failsoft-origin-timestamp-ms") or "-9") != event.timestamp:
            self.say("altered", place, f"{record.topic}: origin timestamp")

    def _ladder(
        self,
        place: Place,
        event: Seen,
        steps: list[Seen],
        answers: list[tuple[Seen, dict[str, Any]]],
        letters: list[Seen],
    ) -> None:
        """Promise 4: nothing is written about a retry before its due time, and each rung is climbed once."""
        attempts = [(r.topic, r.number("failsoft-attempt")) for r in steps]
        expected = [(topic, i) for i, topic in enumerate(self.rungs)][: len(steps)]
        if attempts != expected:
            self.say("doubled", place, f"rungs {attempts}")
            return
        after = [r.timestamp for r, body in answers if body["revision"] > 0] + [r.timestamp for r in letters]
        begun = event.timestamp  # replaced at the first step
        for i, step in enumerate(steps):
            due = step.number("failsoft-due-ms")
            begun = begun if i else step.number("failsoft-first-failed-ms")
            wait = _seconds(self.delays[i]) * 1000
            if due < begun + wait * (1 - self.jitter) - ROUNDING_MS:
                self.say("early", place, f"{step.topic}: due {due - begun} ms after it was decided")
            if due > step.timestamp + wait * (1 + self.jitter) + ROUNDING_MS:
                self.say("inconsistent", place, f"{step.topic}: due {due - step.timestamp} ms after it was written")
            next_times = [steps[i + 1].timestamp] if i + 1 < len(steps) else after
            for moment in next_times:
                if moment < due:
                    self.say("early", place, f"{step.topic}: due {due}, something came of it {due - moment} ms before")
            begun = due


def _origin(r: Seen) -> Place:
    return (
        r.header("failsoft-origin-topic") or "?",
        int(r.header("failsoft-origin-partition") or -1),
        int(r.header("failsoft-origin-offset") or -1),
    )


def _own(r: Seen, letter: bool) -> list[Header]:
    """The event's own headers. On a dead letter Kafka's names of its history are not the event's either."""
    ours = ("failsoft-", "__dlq.errors.") if letter else ("failsoft-",)
    return [(k, v) for k, v in r.headers if not k.startswith(ours)]


def _trace(r: Seen) -> list[Header]:
    return [(k, v) for k, v in r.headers if k in ("traceparent", "tracestate")]


def _seconds(delay: str) -> float:
    unit = delay.lstrip("0123456789.")
    return float(delay[: -len(unit)]) * SECONDS[unit]
