"""The target for a whole batch, from scoring and routing to the bytes that Kafka gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from failsoft.schemas import attempt as attempts
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.failure import Kind
from failsoft.schemas.record import CONTROL_PREFIX, Header
from failsoft.topics.names import Names
from failsoft.topics.routing import route
from failsoft.workers.kafka.produce_batches import compressed_batch, pack
from failsoft.workers.scoring.plan import Scored
from tests.fuzz.published import hold_to_control, hold_to_scored
from tests.fuzz.records import EVENTS, record, written
from tests.fuzz.target import Target
from tests.kit import (
    INPUT,
    NOW_MS,
    REPLAY,
    RULE,
    Answer,
    FakeBoard,
    Rec,
    answers,
    body,
    broken,
    failing,
    fine,
    plan,
    result,
    retried,
    run,
    waiting,
)

PLAN = plan(("model:lite", f"rule:{RULE}", "static"), 0.6, lambda values: values["x"])


def every(nth: int, kind: Kind = Kind.TIMEOUT) -> Answer:
    """A model that fails every ``nth`` row of a call, beginning with the first."""
    return lambda call: failing(*range(0, len(call), nth), kind=kind)(call)


# A byte after the last record of an input chooses one of these worlds: the models' behaviour and the breakers'
# admissions.
WORLDS: Sequence[tuple[Mapping[str, Answer], Mapping[str, int]]] = (
    ({}, {}),
    ({"m": broken}, {}),
    ({"m": broken, "lite": broken}, {}),
    ({"m": every(2), "lite": every(3)}, {}),
    ({"m": fine}, {"m@2": 0, "lite@1": 1}),
    ({"m": lambda call: result([0.55] * len(call))}, {}),
    ({"m": every(2, Kind.CRASHED), "lite": broken}, {"m@2": 1}),
)


def batch(data: bytes) -> bool:
    """Any records between two good ones get one fate each, and the good ones are answered.

    Each written record conforms to the published schemas, can be parsed by its next reader, and carries the evidence
    unchanged.
    """
    *parts, world = data.split(b"\x1e\n")
    middle = [record(part, i) for i, part in enumerate(parts[:12])]
    middle.sort(key=lambda r: r.topic)
    first, last = Rec(offset=1000, value=body("first")), Rec(offset=1001, value=body("last"))
    records = [first, *middle, last]
    models, admits = WORLDS[world[-1] % len(WORLDS) if world else 0]
    done = run(records, PLAN, FakeBoard(admits=admits), models)
    _fates(records, done)
    if not models and not admits:
        good = {s.record.offset: s for s in answers(done) if s.record in (first, last)}
        assert {s.id for s in good.values()} == {"first", "last"}
        assert all(s.source == "primary" and s.final and s.revision == 0 for s in good.values())
    for topic, rows in route(done.verdicts, Names("loans")):
        for key, value, headers in rows:
            _written(topic, value, headers)
            assert key in {r.key for r in records}
        _packed(rows)
    for _, one, headers in retried(done):
        _evidence(one, headers)
    dead = dict(route(done.verdicts, Names("loans"))).get("loans.dead", [])
    for letter, (key, value, headers) in zip(done.verdicts.dead, dead, strict=True):
        assert (key, value) == (letter.record.key, letter.record.value)
        _evidence(letter.record, [h for h in headers if not h[0].startswith("__dlq.errors.")], dead=True)
    return any(answer.id not in ("first", "last") for answer in answers(done)) or bool(done.held)


def _fates(records: Sequence[Rec], done: Scored) -> None:
    given = Counter(id(s.record) for s in answers(done))
    again = Counter(id(r) for _, r, _ in retried(done))
    dead = Counter(id(d.record) for d in done.verdicts.dead)
    unanswered = {id(d.record) for d in done.verdicts.dead if d.attempt.next_revision == 0}
    for row, one in enumerate(records):
        at = id(one)
        fate = (given[at], again[at], dead[at])
        if row in done.held:
            assert fate == (0, 0, 0) and one.topic != INPUT
            continue
        assert max(fate) <= 1 and fate[1] + fate[2] <= 1, fate
        failure = done.failures.get(row)
        if one.topic == INPUT:
            assert given[at] + (at in unanswered) == 1, fate
        elif failure is None or failure.kind is not Kind.LOW_CONFIDENCE:
            assert sum(fate) >= 1
        if failure is None:
            assert fate == (1, 0, 0)
        elif failure.kind.dead_at_once:
            assert dead[at] == 1


def _written(topic: str, value: bytes | None, headers: Sequence[Header]) -> None:
    text = {k: (v or b"").decode("utf-8", "replace") for k, v in headers}
    if topic == "loans.scored":
        assert value is not None and len(value) < 32_768, "the size of an answer must not depend on the event's"
        ours = {k: v for k, v in text.items() if k not in ("traceparent", "tracestate")}
        found = hold_to_scored(value, ours)
        assert text["failsoft-source"] == found["source"]
        return
    control = {k: v for k, v in text.items() if k.startswith(CONTROL_PREFIX)}
    hold_to_control(control | {k: v for k, v in text.items() if k.startswith("__dlq.errors.")}, topic == "loans.dead")
    read = attempts.parse(headers)
    assert isinstance(read, Attempt), read
    assert (read.due_ms is None) is (topic == "loans.dead")
    assert read.due_ms is None or read.due_ms > NOW_MS


def _evidence(one: Rec, headers: Sequence[Header], dead: bool = False) -> None:
    own = [h for h in one.headers if not h[0].startswith(CONTROL_PREFIX)]
    if dead:
        own = [h for h in own if not h[0].startswith("__dlq.errors.")]
    assert [h for h in headers if not h[0].startswith(CONTROL_PREFIX)] == own


def _packed(rows: Sequence[tuple[bytes | None, bytes | None, list[Header]]]) -> None:
    """Asserts that Kafka's own format holds every row and returns it unchanged."""
    batches = pack(
        lambda: BatchBuilder(2_000_000, 0, is_transactional=1), rows, NOW_MS, lambda: compressed_batch(2_000_000, True)
    )
    read = [
        (r.key, r.value, list(r.headers))
        for built in batches
        for found in iter(MemoryRecords(bytes(built._build())).next_batch, None)
        for r in found
    ]
    assert read == [(key, value, list(headers)) for key, value, headers in rows]


_WAITING = [waiting(), waiting("loans.retry.1m", number=1), waiting(REPLAY, next_revision=2), waiting(crashes=1)]
_SEEDS = (
    b"\x1e\n".join([written(Rec(value=body("e"))), written(Rec(value=body(None, y=None))), written(_WAITING[0])]),
    b"\x1e\n".join(map(written, _WAITING)),
    b"\x1e\n".join(
        [*EVENTS[:1], written(Rec(value=body("g"))), written(Rec(value=body("f", x=None))), written(_WAITING[2])]
    ),
)

TARGETS = (
    Target(
        "batch",
        batch,
        tuple(seed + b"\x1e\n" + bytes([world]) for seed in _SEEDS for world in (0, 1, 2, 3, 4, 5, 6)),
        (
            b"\x1e\n",
            b"failsoft-due-ms: 1",
            b"failsoft-attempt: 9223372036854775807",
            b'"at"',
            b'"id"',
            b"traceparent: x",
        ),
    ),
)
