"""Shared by the tests of the pure core: records, a small card, a plan, a fake registry, and results of models."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from failsoft.models.answers.last_known import LastKnown
from failsoft.models.breaker.breaker import Admission
from failsoft.models.catalog.card import ModelCard
from failsoft.models.runtime.run_times import RunTimes
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.decoding import decode_one
from failsoft.schemas.event import Envelope, Event, Events, origin_of
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.fleet.counts import Counts
from failsoft.schemas.prediction import Predictions
from failsoft.schemas.record import Header, Origin
from failsoft.workers.execution.runner import Runner
from failsoft.workers.scoring.plan import Call, CallResult, Plan, Rule, Scored, Served
from failsoft.workers.scoring.poison import PoisonRecord
from failsoft.workers.scoring.score import score

NOW_MS = 1_800_000_000_000
INPUT = "loans.events"
RUNGS = {"loans.retry.5s": 5.0, "loans.retry.1m": 60.0}
REPLAY = "loans.replay"
RULE = "tests.kit:rule"


@dataclass(frozen=True, slots=True)
class Rec:
    """A record as the consumer returns it."""

    topic: str = INPUT
    partition: int = 0
    offset: int = 0
    timestamp: int = NOW_MS - 1000
    key: bytes | None = b"k"
    value: bytes | None = b"{}"
    headers: Sequence[Header] = ()


def body(id: str | None = "e1", **features: Any) -> bytes:
    """An event's value. The features are ``x`` (required) and ``y`` (imputed when missing)."""
    event: dict[str, Any] = {"at": "2018-10-30T18:00:00Z", "features": {"x": 0.25, "y": 1.0} | features}
    if id is not None:
        event["id"] = id
    return json.dumps(event).encode()


def objects(batch: Events) -> list[Mapping[str, Any]]:
    """The features of a batch that needed no schemas."""
    assert isinstance(batch.features, list)
    return batch.features


def read_json(record: Rec, envelope: Envelope) -> Event | Failure:
    """The event of a record, which is JSON, decoded alone."""
    event = decode_one(record, origin_of(record), envelope)
    assert isinstance(event, (Event, Failure))
    return event


def events(n: int, start: int = 0, **features: Any) -> list[Rec]:
    """``n`` valid events of the input topic, at offsets from ``start``."""
    return [Rec(offset=i, key=b"k%d" % i, value=body(f"e{i}", **features), headers=()) for i in range(start, start + n)]


def attempt(**changes: Any) -> Attempt:
    """An attempt on the first rung whose provisional answer is given; ``changes`` replace its fields."""
    plain: dict[str, Any] = {
        "number": 0,
        "origin": Origin(INPUT, 0, 77, NOW_MS - 9000),
        "first_failed_ms": NOW_MS - 8000,
        "failure": Failure(Kind.MODEL_ERROR, "it broke"),
        "model": "m",
        "version": 1,
        "next_revision": 1,
        "due_ms": NOW_MS - 1,
    }
    return Attempt(**(plain | changes))


def waiting(topic: str = "loans.retry.5s", offset: int = 0, value: bytes | None = None, **changes: Any) -> Rec:
    """A record of a rung (or of the replay topic) that is due."""
    if topic == REPLAY:
        changes = {"due_ms": None} | changes
    headers = [("own", b"1"), *attempt(**changes).headers()]
    return Rec(topic, 0, offset, NOW_MS - 5000, b"k", body("w") if value is None else value, headers)


def card(name: str, min_confidence: float | None = None, chain: Sequence[str] = ("static",)) -> ModelCard:
    """A binary model of two numbers, of which ``y`` is imputed."""
    output: dict[str, Any] = {"kind": "binary"}
    if min_confidence is not None:
        output["min_confidence"] = min_confidence
    return ModelCard.model_validate(
        {
            "model": {"name": name},
            "output": output,
            "features": [{"name": "x", "type": "float"}, {"name": "y", "type": "float", "impute": 0.5}],
            "fallback": {"chain": list(chain), "static": {"score": 0.5, "label": 0}},
        }
    )


def plan(
    chain: Sequence[str] = ("static",),
    min_confidence: float | None = None,
    rule: Rule | None = None,
    rungs: Mapping[str, float] | None = None,
    envelope: Envelope | None = None,
) -> Plan:
    """The pipeline "loans". Its primary is "m", and its fallback model, if the chain has one, is "lite"."""
    rungs = RUNGS if rungs is None else rungs
    primary = card("m", min_confidence, chain)
    assert primary.fallback is not None
    return Plan(
        primary="m",
        cards={"m": primary, "lite": card("lite")},
        chain=primary.fallback.chain,
        rules={} if rule is None else {RULE: rule},
        envelope=envelope or Envelope(id="id", time="at", max_bytes=10_000),
        delays=[(topic.rsplit(".", 1)[1], delay) for topic, delay in rungs.items()],
        jitter=0.1,
        rungs=rungs,
        replay=REPLAY,
    )


def member(name: str, *features: str, **output: Any) -> ModelCard:
    """A member of an ensemble that takes these numbers; ``y`` is imputed."""
    columns = [{"name": f, "type": "float"} | ({"impute": 0.5} if f == "y" else {}) for f in features or ("x",)]
    return ModelCard.model_validate(
        {"model": {"name": name}, "output": {"kind": "binary"} | output, "features": columns}
    )


def trio(
    quorum: int = 2,
    chain: Sequence[str] = ("static",),
    min_confidence: float | None = None,
    cards: Mapping[str, ModelCard] | None = None,
    rule: Rule | None = None,
) -> Plan:
    """The pipeline of ``plan`` with an ensemble as its primary: the mean of "a", "b" and "c"."""
    output: dict[str, Any] = {"kind": "binary"}
    if min_confidence is not None:
        output["min_confidence"] = min_confidence
    both = ModelCard.model_validate(
        {
            "model": {"name": "m", "kind": "ensemble"},
            "output": output,
            "ensemble": {"combine": "mean", "quorum": quorum, "members": [{"model": n} for n in "abc"]},
            "fallback": {"chain": list(chain), "static": {"score": 0.5, "label": 0}},
        }
    )
    assert both.fallback is not None
    members = {n: member(n) for n in "abc"} | dict(cards or {})
    every = {"m": both, **members, "lite": card("lite")}
    return replace(plan(rule=rule), cards=every, chain=both.fallback.chain)


@dataclass(slots=True)
class FakeBoard:
    """A fake registry. It admits ``admits`` calls of a key at each request (all, if the key has no entry), and keeps
    the requests and reports that it receives. ``times`` are those of the runs of a model.
    """

    versions: Mapping[str, int] = field(default_factory=lambda: {"m": 2, "lite": 1})
    admits: Mapping[str, int] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    reports: list[tuple[str, int, Counts]] = field(default_factory=list)
    anywhere: bool = False
    released: list[tuple[str, int]] = field(default_factory=list)
    times: Mapping[str, RunTimes] = field(default_factory=dict)

    def serving(self, model: str) -> Served | None:
        return Served(model, self.versions[model], {}, times=self.times.get(model)) if model in self.versions else None

    def admit(self, key: str, n: int, ladder: int = 0) -> Admission:
        self.asked.append((key, n))
        return Admission(min(n, self.admits.get(key, n)), 7, probe=key in self.admits, anywhere=self.anywhere)

    def report(self, key: str, generation: int, counts: Counts) -> None:
        self.reports.append((key, generation, counts))

    def release(self, key: str, generation: int, n: int) -> None:
        self.released.append((key, n))


Answer = Callable[[Call], CallResult]


def result(scores: Sequence[float], bad: Mapping[int, Failure] | None = None, seconds: float = 0.001) -> CallResult:
    """The result of a binary model: ``scores`` with their confidences, and failures by row."""
    column = np.array(scores, np.float32)
    predictions = Predictions(column, (column >= 0.5).astype(int).tolist(), None, np.maximum(column, 1 - column))
    all_bad = bad is not None and len(bad) == len(scores)
    return CallResult(None if all_bad else predictions, bad or {}, seconds)


def fine(call: Call) -> CallResult:
    """A model that answers 0.9 for every row."""
    return result([0.9] * len(call))


def broken(call: Call) -> CallResult:
    """A model that fails every row."""
    return result([0.0] * len(call), {i: Failure(Kind.MODEL_ERROR, "it broke") for i in range(len(call))})


def run(
    records: Sequence[Rec],
    the_plan: Plan | None = None,
    registry: FakeBoard | None = None,
    models: Mapping[str, Answer] | None = None,
    known: LastKnown | None = None,
    u: float | Sequence[float] = 0.5,
    poison: PoisonRecord | None = None,
    **schemas: Any,
) -> Scored:
    """Run ``score`` to its end. A model without an entry in ``models`` is ``fine``. ``schemas``: what ``score`` is told
    of schemas.
    """
    answers = dict(models or {})
    draws = np.full(len(records), u)
    steps = score(records, the_plan or plan(), registry or FakeBoard(), known, NOW_MS, draws, poison, **schemas)
    try:
        call = next(steps)
        while True:
            call = steps.send(answers.get(call.key.split("@")[0], fine)(call))
    except StopIteration as end:
        done: Scored = end.value
        return done


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """One answer: its record, and how it is written."""

    record: Rec
    id: str
    source: str
    reason: str | None
    revision: int
    final: bool
    score: float


def answers(scored: Scored) -> list[GivenAnswer]:
    """Every answer of a batch, in the order of writing."""
    return [
        GivenAnswer(record, a.ids[i], a.source, a.reason, a.revision, a.final, a.predictions.row(i).score)  # type: ignore[arg-type]
        for a, records in ((g.answers, g.records) for g in scored.verdicts.answered)
        for i, record in enumerate(records)
    ]


def retried(scored: Scored) -> list[tuple[str, Rec, list[Header]]]:
    """Every retry: its rung, its record, its headers."""
    return [
        (group.delay, record, headers)  # type: ignore[misc]
        for group in scored.verdicts.retries
        for record, headers in zip(group.records, group.headers, strict=True)
    ]


def by_topic(records: Iterable[Rec]) -> dict[str, list[int]]:
    """Offsets by topic, in the given order."""
    offsets: dict[str, list[int]] = defaultdict(list)
    for record in records:
        offsets[record.topic].append(record.offset)
    return dict(offsets)


async def with_a_thread(runner: Runner, call: Call) -> CallResult:
    """The result of a run of ``call``. On a busy machine no thread may be free before a short deadline. That is not the
    model's failure, which the tests are about, so the run is repeated.
    """
    while True:
        result = await runner.run(call)
        if not any(failure.message.startswith("no thread was free") for failure in result.bad.values()):
            return result


def failing(*rows: int, kind: Kind = Kind.MODEL_ERROR) -> Answer:
    """A model that fails these rows of its call."""

    def model(call: Call) -> CallResult:
        return result([0.9] * len(call), {i: Failure(kind, f"{kind} it was") for i in rows})

    return model
