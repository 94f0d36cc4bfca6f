"""The verifier itself: each breach, applied to records that keep the promise, is found and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.integration.reader import Header, Seen
from tests.integration.verifier import judge

T0 = 1_800_000_000_000
INPUT, SCORED, FIRST, SECOND, DEAD = "p.in", "p.scored", "p.retry.1s", "p.retry.2s", "p.dead"
TRACE: list[Header] = [("traceparent", b"00-1")]
OWN: list[Header] = [("own", b"1"), ("own", b"\xff"), *TRACE]
Records = dict[str, list[Seen]]


def _answer(offset: int, at: int, revision: int, source: str, reason: str | None, final: bool) -> Seen:
    body = {
        "event_id": f"e{offset}",
        "source": source,
        "degraded": source != "primary",
        "reason": reason,
        "revision": revision,
        "final": final,
        "origin": {"topic": INPUT, "partition": 0, "offset": offset},
    }
    headers: list[Header] = [
        ("content-type", b"application/json"),
        ("failsoft-revision", b"%d" % revision),
        ("failsoft-source", source.encode()),
        *TRACE,
    ]
    return Seen(SCORED, 0, 0, at, b"k", json.dumps(body).encode(), tuple(headers))


def _moved(topic: str, offset: int, at: int, attempt: int, due: int | None, kind: str = "bad_output") -> Seen:
    numbers = {"attempt": attempt, "origin-partition": 0, "origin-offset": offset, "origin-timestamp-ms": T0}
    numbers |= {"first-failed-ms": T0 + 10} | ({} if due is None else {"due-ms": due})
    headers: list[Header] = [(f"failsoft-{name}", b"%d" % n) for name, n in numbers.items()]
    headers += [("failsoft-origin-topic", INPUT.encode()), ("failsoft-error-kind", kind.encode())]
    return Seen(topic, 0, 0, at, b"k", b"v%d" % offset, (*OWN, *headers))


def _kept() -> Records:
    """Records of four events: answered, corrected after a retry, given up after two retries, and malformed."""
    due_1, due_2 = T0 + 1010, T0 + 3020
    return {
        INPUT: [Seen(INPUT, 0, i, T0, b"k", b"v%d" % i, tuple(OWN)) for i in range(4)],
        SCORED: [
            _answer(0, T0 + 10, 0, "primary", None, True),
            _answer(1, T0 + 10, 0, "static", "bad_output", False),
            _answer(2, T0 + 10, 0, "static", "bad_output", False),
            _answer(1, due_1, 1, "primary", None, True),
            _answer(2, due_2, 1, "static", "bad_output", True),
        ],
        FIRST: [_moved(FIRST, 1, T0 + 10, 0, due_1), _moved(FIRST, 2, T0 + 10, 0, due_1)],
        SECOND: [_moved(SECOND, 2, due_1 + 10, 1, due_2)],
        DEAD: [_moved(DEAD, 2, due_2, 2, None), _moved(DEAD, 3, T0 + 10, 0, None, "malformed")],
    }


def _judged(records: Records) -> tuple[set[str], list[str]]:
    verdict = judge(records, [INPUT], "p", ["1s", "2s"], 0.1)
    return set(verdict.broken), list(verdict.fates.values())


def test_what_keeps_the_promise_is_found_to_keep_it() -> None:
    """Records that keep the promise break nothing, and each event has the right fate."""
    assert _judged(_kept()) == (set(), ["primary", "corrected", "confirmed: bad_output", "dead: malformed"])


def _drop(topic: str, i: int) -> Callable[[Records], None]:
    return lambda records: records[topic].__delitem__(i)


def _double(topic: str, i: int) -> Callable[[Records], None]:
    return lambda records: records[topic].append(records[topic][i])


def _change(topic: str, i: int, **fields: object) -> Callable[[Records], None]:
    def change(records: Records) -> None:
        records[topic][i] = replace(records[topic][i], **fields)  # type: ignore[arg-type]

    return change


def _header(topic: str, i: int, name: str, value: bytes | None) -> Callable[[Records], None]:
    def change(records: Records) -> None:
        old = records[topic][i]
        kept = tuple((k, value if k == name else v) for k, v in old.headers)
        records[topic][i] = replace(old, headers=kept)

    return change


BREACHES: list[tuple[str, Callable[[Records], None]]] = [
    ("lost", _drop(SCORED, 0)),
    ("lost", _drop(DEAD, 1)),
    ("doubled", _double(SCORED, 0)),
    ("doubled", _double(SCORED, 3)),
    ("doubled", _double(FIRST, 0)),
    ("doubled", _double(DEAD, 0)),
    ("doubled", _double(DEAD, 1)),
    ("never final", _drop(SCORED, 3)),
    ("never final", _drop(SCORED, 4)),
    ("inconsistent", _drop(DEAD, 0)),
    ("inconsistent", _drop(FIRST, 0)),
    ("inconsistent", _drop(SECOND, 0)),
    ("early", _change(SCORED, 3, timestamp=T0 + 1009)),
    ("early", _change(SECOND, 0, timestamp=T0 + 1009)),
    ("early", _change(DEAD, 0, timestamp=T0 + 3019)),
    ("early", _header(FIRST, 0, "failsoft-due-ms", b"%d" % (T0 + 800))),
    ("wrong partition", _change(SCORED, 0, partition=1)),
    ("wrong partition", _change(SECOND, 0, partition=1)),
    ("altered", _change(SCORED, 0, key=None)),
    ("altered", _change(FIRST, 0, key=b"")),
    ("altered", _change(DEAD, 1, value=None)),
    ("altered", _header(SECOND, 0, "own", b"1")),
    ("altered", _header(DEAD, 0, "own", b"")),
    ("untraced", _header(SCORED, 3, "traceparent", b"00-2")),
    ("silent", _change(SCORED, 1, value=_answer(1, 0, 0, "static", None, False).value)),
    ("stray", _change(SCORED, 0, value=_answer(9, 0, 0, "primary", None, True).value)),
]


@pytest.mark.parametrize(("promise", "breach"), BREACHES, ids=[f"{i}-{p}" for i, (p, _) in enumerate(BREACHES)])
def test_each_breach_is_noticed(promise: str, breach: Callable[[Records], None]) -> None:
    """One record dropped, doubled or changed breaks the promise that this change breaches."""
    records = _kept()
    breach(records)
    broken, _ = _judged(records)
    assert promise in broken


def _replay(offset: int) -> Seen:
    return _moved("p.replay", offset, T0 + 5000, 0, None)


def test_replays_add_an_answer_each_and_letters_sent_back_are_no_events() -> None:
    """A letter that another tool sent back to the input topic is the replay of its event."""
    records = _kept()
    letter: list[Header] = [("__dlq.errors.group", b"p"), ("failsoft-replays", b"0")]
    records[DEAD] = [replace(r, headers=(*r.headers, *letter)) for r in records[DEAD]]
    records[INPUT].append(replace(records[DEAD][0], topic=INPUT, offset=4))
    records["p.replay"] = [_replay(2), _replay(3)]
    records[SCORED] += [
        _answer(2, T0 + 6000, 2, "primary", None, True),
        _answer(3, T0 + 6000, 0, "primary", None, True),
    ]
    fates = ["redriven", "primary", "corrected", "replayed: primary", "replayed: primary"]
    assert _judged(records) == (set(), fates)
    records[SCORED].append(_answer(2, T0 + 7000, 2, "primary", None, True))
    assert _judged(records)[0] == {"doubled"}
    records[INPUT].append(replace(records[INPUT][-1], offset=5, headers=(*OWN, *letter)))
    assert "lost" in _judged(records)[0], "what only looks like a letter is an event"


def _waits(topic: str, at: int, attempt: int, due: int | None) -> Seen:
    moved = _moved(topic, 0, at, attempt, due, "dependency")
    return replace(moved, headers=(*moved.headers, ("failsoft-next-revision", b"0")))


def _waited() -> Records:
    """One event that waited twice on its first rung and once more on the second, without an attempt, until it was
    answered.
    """
    due = [T0 + 1010, T0 + 2010, T0 + 4010]
    return {
        INPUT: [Seen(INPUT, 0, 0, T0, b"k", b"v0", tuple(OWN))],
        SCORED: [_answer(0, due[2], 0, "primary", None, True)],
        FIRST: [_waits(FIRST, T0 + 10, 0, due[0]), _waits(FIRST, due[0], 0, due[1])],
        SECOND: [_waits(SECOND, due[1], 0, due[2])],
        DEAD: [],
    }


def _never_read() -> Records:
    """The same event, whose look-ups failed until the ladder's end."""
    records = _waited()
    return records | {
        SCORED: [],
        SECOND: [_waits(SECOND, T0 + 2010, 1, T0 + 4010)],
        DEAD: [_waits(DEAD, T0 + 4010, 2, None)],
    }


def test_an_event_may_wait_unanswered_for_the_registry() -> None:
    """It is answered once when it can be read, or dead and unanswered at the ladder's end."""
    assert _judged(_waited()) == (set(), ["primary"])
    assert _judged(_never_read()) == (set(), ["dead: dependency"])


@pytest.mark.parametrize(
    ("promise", "records", "breach"),
    [
        ("lost", _waited, _drop(SCORED, 0)),
        ("early", _waited, _change(SCORED, 0, timestamp=T0 + 4009)),
        ("early", _waited, _change(SECOND, 0, timestamp=T0 + 2009)),
        ("doubled", _waited, _header(FIRST, 1, "failsoft-error-kind", b"timeout")),
        ("doubled", _waited, _header(SECOND, 0, "failsoft-attempt", b"2")),
        ("doubled", _never_read, lambda records: records[SCORED].append(_answer(0, T0 + 4010, 0, "static", "x", True))),
        ("lost", _never_read, _header(DEAD, 0, "failsoft-next-revision", b"2")),
        ("inconsistent", _never_read, _header(DEAD, 0, "failsoft-attempt", b"1")),
    ],
)
def test_a_breach_by_an_event_that_waited_is_noticed(
    promise: str, records: Callable[[], Records], breach: Callable[[Records], None]
) -> None:
    """An attempt that was used, an answer by a fallback, a retry that was given up too soon."""
    found = records()
    breach(found)
    assert promise in _judged(found)[0]
