"""Settles every published event: its fate, and each promise of the README that was broken.

This is an independent reading of the contract. It reads with confluent-kafka (``isolation.level=read_committed``) and
imports nothing from the packages under test.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.integration.reader import Header, Place, Reader, Seen

AT_ONCE = {"malformed", "invalid", "bad_header", "poison"}
BY_PRIMARY = {"primary", "ensemble"}
NEVER_ANSWERED = {"malformed", "invalid"}
WAITED = "dependency"
"""The kind of an event that could not be read, and waits unanswered on the ladder: the registry did not answer."""

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
ADDED_AT_MOST = 4096
"""Bytes of headers that failsoft may add to a record."""

ROUNDING_MS = 2
"""Milliseconds. A due time and the time it is computed from are each rounded to a millisecond."""


@dataclass
class Settlement:
    """Compares everything that a pipeline wrote with everything on its input topics.

    Attributes:
        bootstrap: the brokers' addresses.
        name: the pipeline's name.
        inputs: its input topics.
        delays: the delays of the retry ladder, written as in the pipeline file.
        jitter: the jitter of these delays, as in the pipeline file.
        partitions: partitions of each topic.
        forged: values that a test itself wrote to the pipeline's own topics; they are not judged.
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
        """The number of first answers, and of events that never get one, among the records read so far."""
        first = sum(1 for r in self.reader.records[self.scored] if r.header("failsoft-revision") == "0")
        return first + sum(map(never_answered, self.reader.records[self.dead]))

    def wait_answered(self, n: int, timeout: float = 120.0) -> None:
        self.reader.until(lambda: self.answered() >= n, timeout, f"{n} first answers")

    def wait_final(self, n: int, timeout: float = 120.0) -> None:
        """Waits until ``n`` events have their final answer, or a dead letter in place of any answer."""
        self.reader.until(lambda: self._final() >= n, timeout, f"{n} final answers")

    def _final(self) -> int:
        final = sum(1 for r in self.reader.records[self.scored] if is_final(r))
        return final + sum(map(never_answered, self.reader.records[self.dead]))

    # --- the verdict ---

    def verdict(self) -> Verdict:
        """Reads each topic to its end and judges each event."""
        self.reader.to_the_end()
        return judge(self.reader.records, self.inputs, self.name, self.delays, self.jitter, self.forged)


@dataclass
class Verdict:
    """The result of a settlement.

    Attributes:
        broken: for each broken promise, one line for each breach.
        fates: the fate of each event, by its place.
        ids: the event id of each answered event, by its place.
    """

    broken: dict[str, list[str]]
    fates: dict[Place, str]
    ids: dict[Place, str]

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.fates.values())

    def __str__(self) -> str:
        lines = [f"{k}: {len(v)}, such as {v[:3]}" for k, v in self.broken.items()]
        return "\n".join(lines) or f"kept: {dict(self.counts)}"


def judge(
    records: Mapping[str, Sequence[Seen]],
    inputs: Sequence[str],
    name: str,
    delays: Sequence[str],
    jitter: float,
    forged: Container[bytes] = (),
) -> Verdict:
    """Judges all records of the topics: returns the fate of each event and each broken promise."""
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
        letters = {_control(r) for r in self._ours(records[self.dead])}
        group = ("__dlq.errors.group", name.encode())
        read = [r for topic in inputs for r in records[topic]]
        self.redriven = {r.place for r in read if group in r.headers and _control(r) in letters}
        self.events = {r.place: r for r in read if r.place not in self.redriven}
        self.replays = Counter(origin_of(r) for r in self._ours(records.get(f"{name}.replay", ())))
        self.answers: dict[Place, list[tuple[Seen, dict[str, Any]]]] = defaultdict(list)
        self.steps: dict[Place, list[Seen]] = defaultdict(list)
        self.letters: dict[Place, list[Seen]] = defaultdict(list)
        for r in records[f"{name}.scored"]:
            body = r.answer()
            origin = body["origin"]
            self._file(self.answers, (origin["topic"], origin["partition"], origin["offset"]), r, (r, body))
        for topic in self.rungs:
            for r in self._ours(records[topic]):
                self._file(self.steps, origin_of(r), r, r)
        for r in self._ours(records[self.dead]):
            self._file(self.letters, origin_of(r), r, r)

    def _ours(self, records: Iterable[Seen]) -> Iterable[Seen]:
        return (r for r in records if (r.value or b"") not in self.forged)

    def _file(self, into: dict[Place, list[Any]], place: Place, record: Seen, item: object) -> None:
        if place not in self.events:
            self.say("stray", place, f"{record.topic} has a record of an event that is on no input topic")
            return
        into[place].append(item)

    def say(self, promise: str, place: Place, text: str) -> None:
        self.broken[promise].append(f"{place[0]}-{place[1]}-{place[2]}: {text}")

    def verdict(self) -> Verdict:
        fates = dict.fromkeys(self.redriven, "redriven")
        ids: dict[Place, str] = {}
        for place, event in self.events.items():
            answers = sorted(self.answers[place], key=lambda a: (a[1]["revision"], a[0].offset))
            fates[place] = self._settle(place, event, answers)
            if answers:
                ids[place] = answers[0][1]["event_id"]
        return Verdict(dict(self.broken), fates, ids)

    def _settle(self, place: Place, event: Seen, answers: list[tuple[Seen, dict[str, Any]]]) -> str:
        steps = sorted(self.steps[place], key=lambda r: (r.number("failsoft-attempt"), r.number("failsoft-due-ms")))
        letters = self.letters[place]
        for record, body in answers:
            self._answer(place, event, record, body)
        for record in (*steps, *letters):
            self._evidence(place, event, record)
        if self.replays[place]:
            return self._replayed(place, answers, letters)
        self._ladder(place, event, steps, answers, letters)
        revisions = Counter(body["revision"] for _, body in answers)
        kinds = [r.header("failsoft-error-kind") or "?" for r in letters]
        for item, n in (("revision 0", revisions[0]), ("revision 1", revisions[1]), ("dead letter", len(letters))):
            if n > 1:
                self.say("doubled", place, f"{n} times {item}")
        if revisions.keys() - {0, 1}:
            self.say("doubled", place, f"revisions {sorted(revisions)}")
        if letters and never_answered(letters[0]) and all(map(waits, steps)):
            if answers:
                self.say("doubled", place, f"answered, though {kinds[0]}")
            if kinds[0] == WAITED and letters[0].number("failsoft-attempt") != len(self.delays):
                self.say("inconsistent", place, f"given up after {letters[0].header('failsoft-attempt')} attempts")
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

    def _replayed(self, place: Place, answers: list[tuple[Seen, dict[str, Any]]], letters: list[Seen]) -> str:
        """The fate of an event whose letters were replayed. Each replay adds at most one answer and one letter."""
        replays = self.replays[place]
        revisions = Counter(body["revision"] for _, body in answers)
        later = sum(n for revision, n in revisions.items() if revision > 1)
        if max(revisions[0], revisions[1]) > 1 or later > replays or len(letters) > 1 + replays:
            self.say("doubled", place, f"{replays} replays, {len(letters)} letters, revisions {dict(revisions)}")
        if not letters:
            self.say("inconsistent", place, "replayed, and never dead")
        if not answers:
            if not all(map(never_answered, letters)):
                self.say("lost", place, "no first answer")
            return "replayed: dead"
        if not revisions[0]:
            self.say("lost", place, "no first answer")
        return f"replayed: {answers[-1][1]['source']}"

    def _fate(
        self, place: Place, first: dict[str, Any], last: dict[str, Any], kinds: list[str], steps: list[Seen]
    ) -> str:
        by_primary = last["source"] in BY_PRIMARY
        exhausted = not by_primary and last["reason"] != "low_confidence"
        if exhausted != bool(kinds):
            self.say("inconsistent", place, f"the last answer's reason is {last['reason']}, dead letters: {kinds}")
        taken = steps[-1].number("failsoft-attempt") + 1 if steps else 0
        if exhausted and kinds and kinds[0] not in AT_ONCE and taken != len(self.delays):
            self.say("inconsistent", place, f"given up after {taken} of {len(self.delays)} retries")
        if first["final"]:
            source = first["source"] if by_primary else "fallback"
            return source if first["reason"] is None else f"{source}: {first['reason']}"
        if not steps:
            self.say("inconsistent", place, "a provisional answer, and no retry")
        return "corrected" if by_primary else f"confirmed: {last['reason']}"

    def _answer(self, place: Place, event: Seen, record: Seen, body: dict[str, Any]) -> None:
        """Checks promise 5, and what the contract says about the scored record."""
        if record.partition != place[1]:
            self.say("wrong partition", place, f"{record.topic} {record.partition}")
        if record.key != event.key:
            self.say("altered", place, f"key {record.key!r}")
        if _trace(record) != _trace(event):
            self.say("untraced", place, f"{record.topic}: {_trace(record)}")
        lacking = body["source"] == "ensemble" and body["reason"] is not None
        degraded = body["source"] not in BY_PRIMARY or lacking
        if body["degraded"] is not degraded or (body["reason"] is not None) is not degraded:
            self.say("silent", place, f"source {body['source']}, degraded {body['degraded']}, reason {body['reason']}")
        if (body["source"] == "ensemble") is not bool(body.get("members")):
            self.say("silent", place, f"source {body['source']}, members {body.get('members')}")
        headers = (record.header("content-type"), record.header("failsoft-revision"), record.header("failsoft-source"))
        kind = "application/avro" if record.is_avro else "application/json"
        if headers != (kind, str(body["revision"]), body["source"]):
            self.say("inconsistent", place, f"headers {headers}")

    def _evidence(self, place: Place, event: Seen, record: Seen) -> None:
        """Checks promise 6: the record carries the event's key, value and own headers byte for byte.

        Also checks that the control headers are few: at most ADDED_AT_MOST bytes, each header once.
        """
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
        """Checks promise 4: no result of a retry is written before its due time. Each rung is used once, in order; but
        an event that waits for the registry may go to its rung, or to a longer one, again with the same attempt.
        """
        if not self._in_order(steps):
            self.say("doubled", place, f"rungs {[(r.topic, r.number('failsoft-attempt')) for r in steps]}")
            return
        least = 0 if steps and waits(steps[-1]) else 1
        after = [r.timestamp for r, body in answers if body["revision"] >= least] + [r.timestamp for r in letters]
        begun = event.timestamp  # replaced at the first step
        for i, step in enumerate(steps):
            due = step.number("failsoft-due-ms")
            begun = begun if i else step.number("failsoft-first-failed-ms")
            wait = _seconds(self.delays[self.rungs.index(step.topic)]) * 1000
            if due < begun + wait * (1 - self.jitter) - ROUNDING_MS:
                self.say("early", place, f"{step.topic}: due {due - begun} ms after it was decided")
            if due > step.timestamp + wait * (1 + self.jitter) + ROUNDING_MS:
                self.say("inconsistent", place, f"{step.topic}: due {due - step.timestamp} ms after it was written")
            next_times = [steps[i + 1].timestamp] if i + 1 < len(steps) else after
            for moment in next_times:
                if moment < due:
                    self.say("early", place, f"{step.topic}: due {due}, its result came {due - moment} ms before")
            begun = due

    def _in_order(self, steps: list[Seen]) -> bool:
        before, may_repeat = -1, False
        for step in steps:
            number, rung = step.number("failsoft-attempt"), self.rungs.index(step.topic)
            if number != before + 1 and not (may_repeat and number == before):
                return False
            may_repeat = waits(step)
            if rung < number if may_repeat else rung != number:
                return False
            before = number
        return True


def waits(r: Seen) -> bool:
    """Whether a record of a rung is an event that could not be read, and has no answer."""
    return r.header("failsoft-error-kind") == WAITED and r.header("failsoft-next-revision") == "0"


def never_answered(letter: Seen) -> bool:
    """Whether a dead letter stands in place of any answer."""
    return letter.header("failsoft-error-kind") in NEVER_ANSWERED or waits(letter)


def is_final(r: Seen) -> bool:
    """Whether a scored record is final. Of one in JSON, its text tells."""
    return r.answer()["final"] is True if r.is_avro else b'"final":true' in (r.value or b"")


def origin_of(r: Seen) -> Place:
    """The place of the event that a retry record or dead letter belongs to."""
    return (
        r.header("failsoft-origin-topic") or "?",
        int(r.header("failsoft-origin-partition") or -1),
        int(r.header("failsoft-origin-offset") or -1),
    )


def _control(r: Seen) -> frozenset[Header]:
    """The headers of a dead letter besides the event's own: a record on an input topic that has all of them is that
    letter, sent back by another tool.
    """
    return frozenset(header for header in r.headers if header[0].startswith(("failsoft-", "__dlq.errors.")))


def _own(r: Seen, letter: bool) -> list[Header]:
    """The event's own headers. On a dead letter this also excludes the headers of KIP-1191."""
    ours = ("failsoft-", "__dlq.errors.") if letter else ("failsoft-",)
    return [(k, v) for k, v in r.headers if not k.startswith(ours)]


def _trace(r: Seen) -> list[Header]:
    return [(k, v) for k, v in r.headers if k in ("traceparent", "tracestate")]


def _seconds(delay: str) -> float:
    unit = delay.lstrip("0123456789.")
    return float(delay[: -len(unit)]) * SECONDS[unit]
