"""Scoring any batch: each record that is not held has the one outcome of the contract, and its bytes are unchanged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from hypothesis import event, given, settings
from hypothesis import strategies as st

from failsoft.schemas import attempt as attempts
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.record import CONTROL_PREFIX, Header, own_headers
from failsoft.topics.names import Names
from failsoft.topics.routing import route
from failsoft.workers.scoring.plan import Call, CallResult, Plan, Scored
from tests.kit import (
    INPUT,
    NOW_MS,
    REPLAY,
    RULE,
    Answer,
    FakeBoard,
    Rec,
    answers,
    attempt,
    body,
    by_topic,
    member,
    plan,
    result,
    retried,
    run,
    trio,
)

MEMBERS = {"a": 1, "b": 2, "c": 3}
TOPICS = (INPUT, REPLAY, "loans.retry.5s", "loans.retry.1m")
ROW_FAILURES = (Kind.MODEL_ERROR, Kind.TIMEOUT, Kind.BAD_OUTPUT, Kind.CRASHED)

OWN = st.lists(
    st.tuples(st.sampled_from(["a", "traceparent", "content-type", "x"]), st.none() | st.binary(max_size=4)),
    max_size=3,
)
VALUES = st.one_of(
    st.sampled_from([body("e"), body(None), body("e", x=None), body("e", y=None), b"{", b"", b'{"id": "e"}']),
    st.none(),
    st.binary(max_size=6),
    st.builds(lambda x: body("e", x=x), st.floats(0, 1, width=32)),
)
HISTORIES = st.builds(
    lambda number, revision, kind: attempt(number=number, next_revision=revision, failure=Failure(kind, "before")),
    st.integers(0, 3),
    st.integers(0, 2),
    st.sampled_from(Kind),
)


@st.composite
def _record(draw: st.DrawFn, topic: str, offset: int) -> Rec:
    """Any record that may be on ``topic``: good or bad value, any own headers, a valid, invalid or forged history."""
    headers: list[Header] = draw(OWN)
    history = draw(HISTORIES)
    if topic != INPUT or draw(st.booleans()):
        due = None if topic == REPLAY else NOW_MS - 1
        written = replace(history, due_ms=due).headers()
        if draw(st.integers(0, 5)) == 0:  # one header is bad
            at = draw(st.integers(0, len(written) - 1))
            written[at] = (written[at][0], draw(st.sampled_from([b"\xff", b"", None])))
        headers = [*headers, *written]
    key = draw(st.none() | st.binary(max_size=3))
    return Rec(topic, 0, offset, NOW_MS - 5000, key, draw(VALUES), draw(st.permutations(headers)))


@st.composite
def _batch(draw: st.DrawFn) -> list[Rec]:
    """Records in order within each topic, as a fetch returns them."""
    records: list[Rec] = []
    for topic in draw(st.permutations(TOPICS)):
        start = draw(st.integers(0, 100))
        records += [draw(_record(topic, start + i)) for i in range(draw(st.integers(0, 4)))]
    return records


@dataclass(frozen=True)
class World:
    """The behaviour of models and breakers. ``fails`` has each model's failing rows, by number modulo 5; the rows'
    random draws start at ``draw`` in [0, 1).
    """

    versions: dict[str, int]
    admits: dict[str, int]
    fails: dict[str, dict[int, Kind]]
    score: float
    anywhere: bool
    draw: float

    def model(self, name: str) -> Answer:
        def answer(call: Call) -> CallResult:
            bad = {
                i: Failure(self.fails[name][i % 5], "it broke") for i in range(len(call)) if i % 5 in self.fails[name]
            }
            return result([self.score] * len(call), bad)

        return answer


FAILS = st.one_of(
    st.just({}),
    st.dictionaries(st.integers(0, 4), st.sampled_from([*ROW_FAILURES, Kind.INVALID]), max_size=5),
    st.just(dict.fromkeys(range(5), Kind.TIMEOUT)),
)
WORLDS = st.builds(
    World,
    versions=st.sampled_from([{"m": 2, "lite": 1}, {"m": 2}, {"lite": 1}, {}]).flatmap(
        lambda some: st.sampled_from([MEMBERS, MEMBERS, {"a": 1, "c": 3}, {}]).map(lambda members: some | members)
    ),
    admits=st.dictionaries(st.sampled_from(["m@2", "lite@1", "a@1", "b@2", "c@3"]), st.integers(0, 6)),
    fails=st.fixed_dictionaries(dict.fromkeys(["m", "lite", *MEMBERS], FAILS)),
    score=st.sampled_from([0.9, 0.55]),
    anywhere=st.booleans(),
    draw=st.floats(0, 1, exclude_max=True),
)
SINGLES = st.builds(
    plan,
    chain=st.sampled_from([["static"], ["model:lite", "static"], ["model:lite", f"rule:{RULE}", "static"]]),
    min_confidence=st.sampled_from([None, 0.6]),
    rule=st.just(lambda values: values["x"]),
    rungs=st.sampled_from([{"loans.retry.5s": 5.0, "loans.retry.1m": 60.0}]),
)


ENSEMBLES = st.builds(
    trio,
    quorum=st.integers(1, 3),
    chain=st.sampled_from([["static"], ["model:lite", "static"], ["model:a", f"rule:{RULE}", "static"]]),
    min_confidence=st.sampled_from([None, 0.6]),
    cards=st.sampled_from([{}, {"c": member("c", "y")}, {"b": member("b", "x", min_confidence=0.6)}]),
    rule=st.just(lambda values: values["x"]),
)
PLANS = SINGLES | ENSEMBLES


def _run(records: list[Rec], the_plan: Plan, world: World) -> Scored:
    registry = FakeBoard(world.versions, world.admits, anywhere=world.anywhere)
    u = [(world.draw + 0.618 * row) % 1 for row in range(len(records))]  # no two are equal, any may be the smallest
    done = run(records, the_plan, registry, {name: world.model(name) for name in world.fails}, u=u)
    granted, asked = Counter[str](), Counter[str]()  # a member that is in the chain too may be asked twice
    for key, _, counts in registry.reports:
        granted[key] += counts.calls
    for key, n in registry.asked:
        asked[key] += min(n, world.admits.get(key, n))
    assert granted == +asked, "each admitted call is reported"
    return done


def _history(record: Rec) -> Attempt | None:
    """The attempt that scoring may read from a record's headers."""
    if record.topic == INPUT:
        return None
    found = attempts.parse(record.headers)
    return found if isinstance(found, Attempt) else None


@settings(max_examples=150, deadline=None)
@given(_batch(), PLANS, WORLDS)
def test_each_record_has_exactly_one_outcome(records: list[Rec], the_plan: Plan, world: World) -> None:
    """By the contract's table a record is answered, retried or dead-lettered, each at most once and without
    contradiction.
    """
    done = _run(records, the_plan, world)
    ensemble = the_plan.cards["m"].ensemble is not None
    given_ = {(s.record.topic, s.record.offset): s for s in answers(done)}
    again = {(r.topic, r.offset): (rung, dict(h)) for rung, r, h in retried(done)}
    dead = {(d.record.topic, d.record.offset): d.attempt for d in done.verdicts.dead}  # type: ignore[attr-defined]
    assert len(given_) == len(answers(done)), "never two answers to a row"
    assert len(again) == len(retried(done)) and len(dead) == len(done.verdicts.dead)
    assert not again.keys() & dead.keys()
    for row, record in enumerate(records):
        at = record.topic, record.offset
        if row in done.held:
            assert record.topic != INPUT and at not in given_ and at not in again and at not in dead
            assert row not in done.failures and row not in done.missing
            event("held")
            continue
        failure, before, answer = done.failures.get(row), _history(record), given_.get(at)
        if failure is None:
            event("by the primary")
            assert answer is not None and answer.final and answer.source == ("ensemble" if ensemble else "primary")
            assert answer.reason == (done.missing[row].kind if row in done.missing else None)
            assert answer.revision == (0 if before is None else before.next_revision)
            assert at not in again and at not in dead
            continue
        assert row not in done.missing
        event(f"{'fresh' if record.topic == INPUT else 'again'}: {failure.kind}")
        if failure.kind is Kind.BAD_HEADER:
            assert record.topic != INPUT and answer is None and at in dead and at not in again
            continue
        number = 0 if before is None else before.number + (record.topic != REPLAY)
        revision = 0 if before is None else before.next_revision
        climbs = failure.retried and number < len(the_plan.delays)
        assert (at in again) is climbs
        assert (at in dead) is (not climbs and failure.kind is not Kind.LOW_CONFIDENCE)
        unanswerable = failure.kind in (Kind.MALFORMED, Kind.INVALID) and revision == 0
        owed = revision == 0 or (revision == 1 and not climbs)
        assert (answer is not None) is (owed and not unanswerable)
        if answer is not None:
            assert answer.source not in ("primary", "ensemble") and answer.reason == failure.kind
            assert answer.revision == revision and answer.final is (not climbs)
        if climbs:
            rung, headers = again[at]
            assert rung == the_plan.delays[number][0] and headers["failsoft-attempt"] == b"%d" % number
            assert headers["failsoft-next-revision"] == b"%d" % max(1, revision)
        elif at in dead:
            assert dead[at].failure == failure and dead[at].number == number
            assert dead[at].next_revision == (0 if unanswerable else 2)


@settings(max_examples=60, deadline=None)
@given(_batch(), PLANS, WORLDS)
def test_each_new_event_is_answered_or_dead_once(records: list[Rec], the_plan: Plan, world: World) -> None:
    """First answers and unanswered dead letters together are exactly the events that were read from input topics."""
    done = _run(records, the_plan, world)
    fresh = [r for r in records if r.topic == INPUT]
    first = [s for s in answers(done) if s.record.topic == INPUT]
    unanswered = [d for d in done.verdicts.dead if d.record.topic == INPUT and d.attempt.next_revision == 0]
    assert {s.revision for s in first} <= {0}
    assert len(first) + len(unanswered) == len(fresh)
    read = Counter(r.topic for row, r in enumerate(records) if row not in done.held)
    counted: Counter[str] = Counter()
    for (topic, _), n in done.outcomes.items():
        counted[topic] += n
    assert counted == read, "each record read is counted once"
    assert done.replayed.total() == read[REPLAY]
    assert done.answers.total() == len(answers(done))
    assert done.dead.total() == len(done.verdicts.dead) and done.retried.total() == len(retried(done))


@settings(max_examples=60, deadline=None)
@given(_batch(), PLANS, WORLDS)
def test_own_bytes_are_unchanged_and_control_headers_are_complete(
    records: list[Rec], the_plan: Plan, world: World
) -> None:
    """Retries and dead letters have the event's key, value and own headers byte for byte, and an attempt that can be
    parsed.
    """
    done = _run(records, the_plan, world)
    for _, record, headers in retried(done):
        assert headers[: len(own_headers(record.headers))] == own_headers(record.headers)
        found = attempts.parse(headers)
        assert isinstance(found, Attempt) and found.due_ms is not None and found.due_ms > NOW_MS
        assert found.origin == (_history(record) or attempt(origin=found.origin)).origin
    routed = dict(route(replace(done.verdicts, answered=[]), Names("loans")))
    for dead, (key, value, headers) in zip(done.verdicts.dead, routed.get("loans.dead", []), strict=True):
        record = dead.record
        own = [h for h in record.headers if not h[0].startswith(CONTROL_PREFIX)]
        assert (key, value) == (record.key, record.value) and headers[: len(own)] == own
        found = attempts.parse(headers)
        assert isinstance(found, Attempt) and found.due_ms is None


@settings(max_examples=60, deadline=None)
@given(_batch(), PLANS, WORLDS)
def test_order_is_kept_and_held_rows_are_the_end_of_their_topic(
    records: list[Rec], the_plan: Plan, world: World
) -> None:
    """Within a group of answers or retries rows keep their order, and of each topic only the last rows are held."""
    done = _run(records, the_plan, world)
    for group in [*done.verdicts.answered, *done.verdicts.retries]:
        for offsets in by_topic(group.records).values():  # type: ignore[arg-type]
            assert offsets == sorted(offsets)
    waits = {topic: [] for topic in TOPICS}  # type: ignore[var-annotated]
    for row, record in enumerate(records):
        waits[record.topic].append(row in done.held)
    assert all(flags == sorted(flags) for flags in waits.values())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(VALUES, OWN), max_size=6), WORLDS)
def test_splitting_a_batch_changes_no_outcome(parts: list[tuple[bytes | None, list[Header]]], world: World) -> None:
    """If models do not depend on a row's place in the batch, records have the same outcome alone as together."""
    all_or_none = {m: dict.fromkeys(range(5), f[0]) if 0 in f else {} for m, f in world.fails.items()}
    whole = replace(world, fails=all_or_none, admits={})
    records = [Rec(offset=i, value=value, headers=headers) for i, (value, headers) in enumerate(parts)]
    together = _run(records, plan(), whole)
    alone = [_run([record], plan(), whole) for record in records]
    assert sorted(answers(together), key=lambda s: s.record.offset) == [s for one in alone for s in answers(one)]
    assert together.dead == sum((one.dead for one in alone), Counter())
    assert together.retried == sum((one.retried for one in alone), Counter())
