"""A worker stopped (SIGSTOP) at each step of a transaction, past its session, while others take over; then continued.

Nothing is lost, doubled, early or never final, and the step decides what becomes of the transaction. The group's
generation fences the offsets: what was not committed before them never will be. Once they are in, the others wait for
the end, or for the abort.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from failsoft.workers.client_timeouts import ClientTimeouts
from tests.integration.pipeline import Pipeline, Worker, running
from tests.kafka import Broker, wait_for
from tests.system import stops
from tests.system.feed import Feed
from tests.system.recovery import answered_everywhere, kept
from tests.system.stops import ASKED, BEFORE_COMMIT, MOMENTS, STABLE, WENT, said

N = 300
RATE = 100.0
FAILING = 30

PAST_TRANSACTION = 19.0
"""Seconds after which a broker has aborted a transaction: it times out after 8 (workers.kafka.clients), and the broker
looks every 10."""

STOPS_WITHIN, TAKEN_OVER, SETTLED = 30.0, 40.0, 30.0
"""Seconds for a commit to come; for the session of 6, a rebalance and a transaction of the dead; and for a continued
worker to end or to rejoin."""

ENTERS = '"event": "lanes assigned"'


@dataclass(frozen=True)
class Variant:
    """How a worker is stopped, and what then happens.

    Attributes:
        outlasts: the stop outlasts the transaction's timeout too, not only the session.
        options: how the workers differ from the product's (tests.system.stops.OPTIONS).
        same_id: a new process with the stopped worker's id takes over, beside the other worker.
    """

    outlasts: bool = False
    options: tuple[str, ...] = ("patient",)
    same_id: bool = False

    @property
    def moments(self) -> list[str]:
        """The steps of a transaction."""
        return [BEFORE_COMMIT, *MOMENTS]

    def goes_through(self, moment: str) -> bool | None:
        """Does a transaction that was stopped at ``moment`` commit? None if chance decides."""
        if moment == "after EndTxn":
            return True
        if self.outlasts or self.same_id:
            return False
        # The offsets are sent beside the outputs: they may be in already. And a continued worker ends itself when it
        # learns that its group has removed it, which may be before or after the end of its transaction.
        return None if moment.endswith("Produce") or moment in ("after TxnOffsetCommit", "before EndTxn") else False

    def __str__(self) -> str:
        how = ["past the transaction" if self.outlasts else "past the session", *self.options]
        return ", ".join([*how, *(["same id"] if self.same_id else [])])


@dataclass(frozen=True)
class Outcome:
    """What became of a stopped worker.

    Attributes:
        went: its transaction committed.
        code: its exit code; None if it went on.
        seconds: how long after its stop this was known.
    """

    went: bool
    code: int | None
    seconds: float


PATIENT = Variant()
VARIANTS = (
    PATIENT,
    Variant(options=("patient", "dynamic")),
    Variant(options=("patient", "transactions-v1")),
    Variant(same_id=True),
    Variant(outlasts=True, options=()),
    Variant(outlasts=True, options=("dynamic",)),
)


def test_a_worker_stopped_in_a_transaction(kafka: Broker, name: str, tmp_path: Path) -> None:
    """A worker stopped at a step and continued after the takeover commits exactly what its group still lets it."""
    stop_at_each(kafka, name, tmp_path, PATIENT, ["before TxnOffsetCommit"])


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_worker_stopped_at_each_step(kafka: Broker, name: str, tmp_path: Path, variant: Variant) -> None:
    """The same at every step, with static and dynamic members, each protocol, and every kind of takeover."""
    stop_at_each(kafka, name, tmp_path, variant, variant.moments)


def stop_at_each(kafka: Broker, name: str, folder: Path, variant: Variant, moments: Sequence[str]) -> None:
    """Stop a worker at each of ``moments`` in turn, and settle every event."""
    pipeline = Pipeline(folder, kafka.bootstrap, name)
    wrong = []
    with running(pipeline) as settlement:
        workers = [stops.start(pipeline, id, *variant.options) for id in ("w0", "w1")]
        for worker in workers:
            worker.wait_ready()
        with Feed(pipeline, N, RATE, FAILING):
            settlement.wait_answered(round(RATE))
            for moment in moments:
                victim, other = workers  # in turn, so that each step meets a worker that has run for a while
                outcome, successor = stop_and_continue(pipeline, victim, other, variant, moment)
                answered_everywhere(settlement)
                print(f"{moment}: {outcome}", flush=True)
                expected = variant.goes_through(moment)
                if outcome.went is not (outcome.went if expected is None else expected):
                    wrong.append((moment, outcome, victim.tail(6)))
                if outcome.code not in (None, 1) and outcome.seconds < ClientTimeouts().stuck_after:
                    wrong.append((moment, outcome, victim.tail(6)))
                workers = [other, successor]
        settlement.wait_final(pipeline.published)
        for worker in workers:
            assert worker.drain() == 0, worker.tail()
        verdict = settlement.verdict()
    kept(verdict, pipeline.published, FAILING)
    assert not wrong, wrong


def stop_and_continue(
    pipeline: Pipeline, victim: Worker, other: Worker, variant: Variant, moment: str
) -> tuple[Outcome, Worker]:
    """Stop ``victim`` until others have its lanes. Returns what became of it, and who has its id afterwards."""
    line = STABLE if variant.outlasts else ASKED
    asked, entered, went = said(other).count(line), said(victim).count(ENTERS), said(victim).count(WENT)
    stops.stop_at(pipeline, victim, moment, STOPS_WITHIN)
    stopped = time.monotonic()
    successor = None
    if variant.same_id:
        successor = stops.start(pipeline, victim.id, *variant.options)
        successor.wait_ready()
    else:
        wait_for(lambda: said(other).count(line) > asked, TAKEN_OVER, f"a takeover ({moment})")
    if variant.outlasts:
        wait_for(lambda: time.monotonic() > stopped + PAST_TRANSACTION, TAKEN_OVER, "the transaction's timeout")
    victim.signal(signal.SIGCONT)
    wait_for(
        lambda: victim.process.poll() is not None or (not successor and said(victim).count(ENTERS) > entered),
        SETTLED,
        f"the continued worker to end, or to rejoin if no other has its id ({moment})",
    )
    code = victim.process.poll()
    outcome = Outcome(said(victim).count(WENT) > went, code, time.monotonic() - stopped)
    if successor is None and code is not None:
        successor = stops.start(pipeline, victim.id, *variant.options)  # as a supervisor does
        successor.wait_ready()
    return outcome, successor or victim
