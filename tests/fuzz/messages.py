"""Targets for messages: between workers, offset metadata, answers of a model's process, scored records read back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from failsoft.models.answers.last_known import LastKnown
from failsoft.models.breaker import fleet as breakers
from failsoft.models.breaker.rules import BreakerPolicy
from failsoft.models.isolation import codec
from failsoft.models.isolation.codec import Damaged
from failsoft.models.isolation.transport import LARGEST_ANSWER as LONGEST_ANSWER
from failsoft.models.rollout import rollout
from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.vetting.verdict import Check, CheckResult, Vetting
from failsoft.schemas import scored_avro, scored_read, wire
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.fleet.breaker import Alert, BreakerRow, Command, Report
from failsoft.schemas.fleet.rollout import Heartbeat, Order, RolloutRow
from failsoft.schemas.prediction import Predictions, Source
from failsoft.schemas.scored import Answers, encode
from failsoft.schemas.wire import Malformed
from failsoft.workers.lanes import crash_marks
from failsoft.workers.lanes.restore import _remember
from tests.fuzz.published import hold_to_scored, plain
from tests.fuzz.target import Target
from tests.kit import NOW_MS, Rec

POLICY = BreakerPolicy(0.5, 30.0, 20, 0.1, 0.8, 15.0, 300.0, 3)
ROLLOUTS = rollout.RollbackPolicy(3, 1800.0)


def round_trip(kind: Any, raw: bytes) -> Any:
    """Parses ``raw`` and asserts that the result survives a round trip; None if it is Malformed."""
    try:
        found = kind.parse(raw)
    except Malformed as e:
        assert 0 < len(str(e)) < 2000, str(e)
        return None
    written = wire.dumps(found.to_dict()) if isinstance(found, RolloutRow) else found.to_bytes()
    plain(written)
    assert kind.parse(written) == found
    return found


def fleet(data: bytes) -> bool:
    """A breaker row with a report or command: each parses or is Malformed. The row that an owner folds from them can be
    parsed again.
    """
    first, _, second = data.partition(b"\n")
    row, messages = round_trip(BreakerRow, first), (round_trip(Report, second), round_trip(Command, second))
    accepted = any(each is not None for each in (round_trip(Alert, first), row, *messages))
    for message in messages:
        if message is None:
            continue
        key = message.key if isinstance(message, Report) else message.target
        own = row if row is not None and breakers.targets(key, [row.key]) else None
        if own is None and not key.rpartition("@")[0]:
            continue
        folded = breakers.fold(own, message, POLICY, NOW_MS, 0.5)
        if folded.row is not None:
            assert BreakerRow.parse(folded.row.to_bytes()) == folded.row
            breakers.view(folded.row, "w1", NOW_MS)
        for alert in folded.alerts:
            assert Alert.parse(alert.to_bytes()) == alert
    return accepted


def rollouts(data: bytes) -> bool:
    """A rollout row with a heartbeat or order: the same rule as for ``fleet``."""
    first, _, second = data.partition(b"\n")
    row, messages = round_trip(RolloutRow, first), (round_trip(Heartbeat, second), round_trip(Order, second))
    for message in messages:
        if message is None:
            continue
        folded = rollout.fold(row, message, ROLLOUTS, NOW_MS)
        if folded.row is not None:
            assert RolloutRow.parse(wire.dumps(folded.row.to_dict())) == folded.row
            rollout.workers_by_version(folded.row, NOW_MS)
            key = f"{folded.row.model}@{folded.row.active}"
            failing = BreakerRow(key, "open", until_ms=NOW_MS, reopenings=3)
            rollout.verdict(folded.row, failing, ROLLOUTS, NOW_MS)
        for alert in folded.alerts:
            assert Alert.parse(alert.to_bytes()) == alert
    return any(each is not None for each in (row, *messages))


def verdict(data: bytes) -> bool:
    """A verdict of the vetting process parses, or is Malformed."""
    return round_trip(Vetting, data) is not None


def mark(data: bytes) -> bool:
    """Any offset metadata is a crash marker or none, and the metadata that a lane then writes is a crash marker too."""
    text = data.decode("utf-8", "replace")
    found = crash_marks.parse(text)
    assert found is None or crash_marks.parse(str(found)) == found
    for offset in (0, 5, 2**40):
        tracker: crash_marks.CrashTracker[tuple[str, int]] = crash_marks.CrashTracker()
        place = ("t", 0)
        assert tracker.opened(place, offset, text) in (found, None)
        chosen = tracker.choose([place])
        assert chosen is None or chosen[1] >= 1
        last = offset + (chosen[1] if chosen else 100) - 1
        mode = tracker.mode({place: last})
        for each in mode.marks.values():
            assert crash_marks.parse(str(each)) == each and len(str(each)) < 200
        committed = tracker.offset_metadata(mode, {place: offset}, {place: last + 1})
        for _, metadata in committed.values():
            assert metadata == "" or crash_marks.parse(metadata) is not None, metadata
    return found is not None


ROWS = 3


def answer(data: bytes) -> bool:
    """Any answer of a model's process gives predictions that can be written, failures that a model may have, or
    Damaged.
    """
    first, *blocks = data.split(b"\x1e\n")
    try:
        about = wire.loads(first, LONGEST_ANSWER)
    except Malformed:
        return False
    if not isinstance(about, dict):
        return False  # isolated_session reads an object's keys: a TypeError there is "an invalid reply"
    try:
        found = codec.answer(about, [np.frombuffer(block, np.uint8) for block in blocks], ROWS)
    except Damaged as e:
        assert str(e)
        return False
    if isinstance(found, Failure):
        assert found.kind in codec.SESSION_KINDS
        return True
    assert isinstance(found, ModelOutput) and len(found.predictions) == ROWS
    assert all(0 <= row < ROWS and failure.kind in codec.SESSION_KINDS for row, failure in found.bad.items())
    good = [row for row in range(ROWS) if row not in found.bad]
    kept = found.predictions.take(np.array(good, np.intp))
    n = len(good)
    for value in encode(
        Answers(
            Source.PRIMARY, "m", 1, None, 0, True, ["e"] * n, ["2018-10-30T18:00:00Z"] * n, kept, ["t"] * n, 0,
            list(range(n)), {}, "2018-10-30T18:00:00Z",
        )
    ):  # fmt: skip
        hold_to_scored(value)
    return True


def known(data: bytes) -> bool:
    """Any scored record is an answer that can be given again as last known, or is ignored."""
    remembered = LastKnown(3600.0)
    source = [("failsoft-source", b"ensemble" if data[-1:] == b" " else b"primary")]
    _remember(remembered, [Rec(timestamp=NOW_MS, value=data, headers=source, key=b"k")], NOW_MS / 1000)
    found = remembered.recall(b"k", NOW_MS / 1000)
    if found is None:
        return False
    assert math.isfinite(found.prediction.score)
    one = Predictions.of([found.prediction])
    again = Answers(
        Source.LAST_KNOWN, found.model, found.version, Kind.TIMEOUT, 0, False, ["e"], ["2018-10-30T18:00:00Z"], one,
        ["t"], 0, [1], {}, "2018-10-30T18:00:00Z",
    )  # fmt: skip
    (value,) = encode(again)
    hold_to_scored(value)
    (avro,) = scored_avro.encode(again, 7)
    read, right = (scored_read.loads(each, len(each)) for each in (avro, value))
    assert read | {"label": str(read["label"])} == right | {"label": str(right["label"])}, (read, right)
    return True


def _encoded(given: ModelOutput | Failure) -> bytes:
    about, blocks = codec.send_answer(given)
    return b"\x1e\n".join([wire.dumps(about), *(bytes(memoryview(b).cast("B")) for b in blocks)])


_SCORES = np.array([0.75, 0.5, 0.25], np.float32)
_TABLE = np.array([[0.25, 0.75], [0.5, 0.5], [0.75, 0.25]], np.float32)
_ENCODED_ANSWERS = (
    _encoded(ModelOutput(Predictions(_SCORES, [1, 1, 0], None, _SCORES), {})),
    _encoded(ModelOutput(Predictions(_SCORES, ["a", "é", "b"], _TABLE, np.array([0.5, 1, 0.7])), {})),
    _encoded(
        ModelOutput(
            Predictions(_SCORES, outputs={"std": _SCORES, "ids": np.arange(6).reshape(3, 2), "w": ["", {}, 1]}), {}
        )
    ),
    _encoded(ModelOutput(Predictions(_SCORES, [1, "a", None]), {1: Failure(Kind.BAD_OUTPUT, "no number")})),
    _encoded(Failure(Kind.TIMEOUT, "too long")),
)
_REPORT = (
    b'{"key":"m@2","worker":"w1","sequence":5,"at_ms":%d,"generation":4,"kind":"window","counts":{"calls":40,"failures":'
    b'30,"slow":1,"runs":4},"probes":{"passed":0,"failed":0,"slow":0},"want":3,"tripped":true}' % NOW_MS
)
_ROW = (
    b'{"key":"m@2","state":"half_open","generation":4,"since_ms":%d,"until_ms":null,"reopenings":2,"reason":"r",'
    b'"changed_by":"w","lease":{"worker":"w1","probes":3,"granted_ms":1,"expires_ms":%d,"passed":1,"slow":0},"passed":1,'
    b'"slow":0,"windows":{"w1":{"sequence":3,"at_ms":5,"counts":{"calls":20,"failures":11,"slow":0,"runs":2},"tripped":'
    b'true,"failing_ms":4}},"sick":["w2"],"commands":["5 close ann"]}' % (NOW_MS - 5000, NOW_MS + 9000)
)
_COMMAND = b'{"target":"m","action":"force_open","who":"ann","why":"it smells","at_ms":%d}' % NOW_MS
_HEALTH = b'{"2":{"calls":9,"failures":1,"runs":2,"seconds":0.5,"judged":9,"sure":8.1}}'
_PRESENCE = b'{"worker":"w1","model":"m","serving":2,"at_ms":%d,"problem":null,"health":%b}' % (NOW_MS, _HEALTH)
_ROLLOUT = (
    b'{"model":"m","active":3,"previous":2,"since_ms":5,"held_until_ms":null,"history":[{"at_ms":1,"from_":null,"to":2,'
    b'"who":"w1","why":"first","trigger":"first"},{"at_ms":2,"from_":2,"to":3,"who":"ann","why":"better","trigger":'
    b'"promote"}],"workers":{"w1":{"version":3,"at_ms":4,"problem":null,"health":%b}},"orders":[{"order":"2 promote '
    b'ann","refused":null}]}' % _HEALTH
)
_ORDER = b'{"target":"m@2","order":"rollback","who":"ann","why":"worse","at_ms":%d,"failing":null}' % NOW_MS
_ALERT = b'{"name":"breaker","key":"m@2","at_ms":5,"from":"closed","to":"open","reason":"r","worker":null}'
_ANSWERED = (
    b'{"event_id":"e","score":0.93,"label":1,"probabilities":[0.07,0.93],"confidence":0.93,"outputs":{"std":0.1},"source":"primary","model":"m",'
    b'"version":2,"degraded":false,"reason":null,"revision":0,"final":true,"imputed":[],"origin":{"topic":"t","partition":'
    b'0,"offset":17},"event_time":"2018-10-30T18:00:00Z","scored_at":"2026-11-24T16:00:00.123Z"}'
)
_IN_AVRO = scored_avro.encode(
    Answers(
        Source.PRIMARY, "m", 2, None, 0, True, ["e", "f"], ["2018-10-30T18:00:00Z"] * 2,
        Predictions(_SCORES[:2], [1, "a"], _TABLE[:2], _SCORES[:2], {"std": _SCORES[:2], "w": [[1], {"k": [None]}]}),
        ["t"] * 2, 0, [17, 18], {0: ("x",)}, "2018-10-30T18:00:00Z",
    ),
    7,
)  # fmt: skip
_VETTING = Vetting(
    "m", 2, "0" * 64, (Check("load", CheckResult.PASSED, "in 3 ms"), Check("nan", CheckResult.NOTE, "é")), 1.5
)

TARGETS = (
    Target(
        "fleet",
        fleet,
        (_ROW + b"\n" + _REPORT, _ROW + b"\n" + _COMMAND, _ALERT, b"\n" + _REPORT),
        (b'"w1"', b"4", b'"m@2"'),
    ),
    Target(
        "rollouts",
        rollouts,
        (_ROLLOUT + b"\n" + _PRESENCE, _ROLLOUT + b"\n" + _ORDER, b"\n" + _PRESENCE),
        (b'"2"', b'"m@1"'),
    ),
    Target("verdict", verdict, (_VETTING.to_bytes(),), (b'"load"', b'"failed"')),
    Target(
        "mark",
        mark,
        (
            b"failsoft/1 suspect deaths=1 until=64 of=4000",
            b"failsoft/1 alone deaths=2 until=6 of=64",
            b"failsoft/1 among deaths=0 until=4000 of=4000",
        ),
        (b"999", b"alone", b"among", b"suspect", b"5", b"6"),
    ),
    Target(
        "answer",
        answer,
        _ENCODED_ANSWERS,
        (b'"timeout"', b'"malformed"', b'"scores"', b"\xed\xa0\x80", b"\xff" * 8, b"\x1e\n"),
    ),
    Target(
        "known",
        known,
        (_ANSWERED, _ANSWERED.replace(b'"version":2', b'"version":null') + b" ", *_IN_AVRO),
        (b'"nan"', b'"0.5"', b"[0.5]"),
    ),
)
