"""A worker stopped (SIGSTOP) at each step of a transaction, past its session, while others take over; then continued.

Nothing is lost, doubled, early or never final, and the step decides what becomes of the transaction. The group's
generation fences the offsets. Whatever comes before them is aborted; once they are in, the others wait for the end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from failsoft.workers.lanes.assignment import STUCK_AFTER
from tests.integration.pipeline import Pipeline, Worker, running
from tests.kafka import Broker, wait_for
from tests.system import stops
from tests.system.feed import Feed
from tests.system.recovery import kept
from tests.system.stops import ASKED, BEFORE_COMMIT, MOMENTS, REQUESTS, STABLE, STOPS, WENT, said

N = 1_000
RATE = 100.0
FAILING = 50

PAST_TRANSACTION = 19.0
"""Seconds after which a broker has aborted a transaction: it times out after 8 (workers.kafka.clients), and the broker
looks every 10."""

STOPS_WITHIN, TAKEN_OVER, SETTLED = 30.0, 40.0, 30.0
"""Seconds for a commit to come; for the session of 6, a rebalance and a transaction of the dead; and for a continued
worker to end or to rejoin."""

ENTERS = '"event": "lanes assigned"'


@dataclass(frozen=True)
class Step:
    """One case.

    Attributes:
        moment: when the worker stops (tests.system.stops).
        outlasts: the stop outlasts the transaction's timeout too, not only the session.
        options: how the workers differ from the product's (tests.system.stops.OPTIONS).
        same_id: a new process with the stopped worker's id takes over, beside the other worker.
    """

    moment: str
    outlasts: bool = False
    options: tuple[str, ...] = ()
    same_id: bool = False

    @property
    def goes_through(self) -> bool | None:
        """Does the stopped transaction commit? None if chance decides."""
        request = self.moment.rpartition(" ")[2]
        if self.moment == "after EndTxn":
            return True
        if self.outlasts or self.same_id or self.moment == BEFORE_COMMIT:
            return False
        if self.moment == "after Produce":
            return None  # the offsets are sent beside the outputs: they may be in already
        return REQUESTS.index(request) >= REQUESTS.index("EndTxn") or self.moment == "after TxnOffsetCommit"

    def __str__(self) -> str:
        how = ["past the transaction" if self.outlasts else "past the session", *self.options]
        return ", ".join([self.moment, *how, *(["same id"] if self.same_id else [])])


def _steps() -> Iterator[Step]:
    """All cases. The slow half, past the transaction's timeout, does without the variants of the protocol."""
    for moment in (BEFORE_COMMIT, *MOMENTS):
        for members in ((), ("dynamic",)):
            yield Step(moment, False, ("patient", *members))
            yield Step(moment, True, members)
        yield Step(moment, False, ("patient", "transactions-v1"))
        yield Step(moment, False, ("patient",), same_id=True)
        if "ToTxn" not in moment:
            yield Step(moment, False, ("patient", "brokers-add"))


SHORT = (
    Step("before TxnOffsetCommit", False, ("patient",)),
    Step("before EndTxn", False, ("patient", "dynamic")),
    Step("after TxnOffsetCommit", False, ("patient",), same_id=True),
)
"""The cases of the normal suite: an old generation, a late end, and a successor that aborts."""


@pytest.mark.parametrize("step", SHORT, ids=str)
def test_a_worker_stopped_in_a_transaction(kafka: Broker, name: str, tmp_path: Path, step: Step) -> None:
    """A worker stopped at a step and continued after the takeover commits exactly what its group still lets it."""
    stop_and_continue(kafka, name, tmp_path, step)


@pytest.mark.long
@pytest.mark.parametrize("step", [step for step in _steps() if step not in SHORT], ids=str)
def test_a_worker_stopped_at_each_step(kafka: Broker, name: str, tmp_path: Path, step: Step) -> None:
    """The same for every step, static and dynamic members, each protocol, and every kind of takeover."""
    stop_and_continue(kafka, name, tmp_path, step)


def stop_and_continue(kafka: Broker, name: str, folder: Path, step: Step) -> None:
    """Run one case and settle every event."""
    pipeline = Pipeline(folder, kafka.bootstrap, name)
    with running(pipeline) as settlement:
        zombie, other = (stops.start(pipeline, id, *step.options) for id in ("w0", "w1"))
        zombie.wait_ready()
        other.wait_ready()
        with Feed(pipeline, N, RATE, FAILING):
            settlement.wait_answered(round(RATE))
            asked = said(other).count(STABLE if step.outlasts else ASKED)
            stops.stop_at(pipeline, zombie, step.moment, STOPS_WITHIN)
            stopped, entered = time.monotonic(), said(zombie).count(ENTERS)
            successor = stops.start(pipeline, "w0", *step.options) if step.same_id else None
            if successor is not None:
                successor.wait_ready()
            else:
                _wait_takeover(other, asked, stopped, step)
            zombie.signal(stops.signal.SIGCONT)
            wait_for(
                lambda: zombie.process.poll() is not None or said(zombie).count(ENTERS) > entered,
                SETTLED,
                "the continued worker to end or to rejoin",
            )
            lasted = time.monotonic() - stopped
            outcome = _outcome(zombie)
            workers = [other, successor or _successor(pipeline, zombie, step)]
        settlement.wait_final(pipeline.published)
        for worker in workers:
            assert worker.drain() == 0, worker.tail()
        verdict = settlement.verdict()
    kept(verdict, pipeline.published, FAILING)
    assert outcome.went is (step.goes_through if step.goes_through is not None else outcome.went), outcome
    assert outcome.code in (None, 1) or lasted > STUCK_AFTER, outcome


def _wait_takeover(other: Worker, asked: int, stopped: float, step: Step) -> None:
    """Wait until the other worker has the lanes. Past the transaction's timeout it must have its offsets too."""
    line = STABLE if step.outlasts else ASKED
    wait_for(lambda: said(other).count(line) > asked, TAKEN_OVER, "the other worker to take over")
    if step.outlasts:
        wait_for(lambda: time.monotonic() > stopped + PAST_TRANSACTION, TAKEN_OVER, "the transaction's timeout")


@dataclass(frozen=True)
class Outcome:
    """What became of the stopped worker.

    Attributes:
        went: its transaction committed.
        code: its exit code; None if it went on.
        tail: the end of its log.
    """

    went: bool
    code: int | None
    tail: str


def _outcome(zombie: Worker) -> Outcome:
    text = said(zombie)
    assert STOPS in text
    return Outcome(WENT in text, zombie.process.poll(), zombie.tail(4))


def _successor(pipeline: Pipeline, zombie: Worker, step: Step) -> Worker:
    """The worker with the zombie's id from now on: a new process if it has ended, as a supervisor starts."""
    if zombie.process.poll() is None:
        return zombie
    worker = stops.start(pipeline, zombie.id, *step.options)
    worker.wait_ready()
    return worker
