"""A poison record that kills its worker's own process, on a real Kafka: it is found, and all others are answered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.deadly import DEADLY
from tests.integration.pipeline import Event, Pipeline, Worker, body, events, running
from tests.integration.verifier import Settlement, Verdict
from tests.kafka import Broker

N = 3000


def _deadly(i: int) -> Event:
    return b"k", body(i, x=DEADLY), [], None


class Restarted:
    """A worker that is started again after each death; ``deaths`` is their number."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.deaths, self.starts = pipeline, 0, 0
        self.worker: Worker = pipeline.start(deadly=True)

    def look(self) -> None:
        if self.worker.process.poll() is not None:
            self.starts += 1
            assert self.starts < 10, self.worker.tail(40)
            # A worker stalled past its session timeout may have ended by itself: that is not a death.
            self.deaths += self.worker.process.returncode < 0
            self.worker = self.pipeline.start(deadly=True)

    def until_answered(self, settlement: Settlement, n: int) -> None:
        def answered() -> bool:
            self.look()
            return settlement.answered() >= n

        settlement.reader.until(answered, 200, f"{n} first answers after {self.deaths} deaths")


def _poison(settlement: Settlement) -> list[dict[str, object]]:
    """The answers with reason poison."""
    found = [json.loads(r.value or b"") for r in settlement.reader.records[settlement.scored]]
    return [answer for answer in found if answer["reason"] == "poison"]


def _convicted(settlement: Settlement, verdict: Verdict, i: int, crashes: int) -> None:
    """Asserts that only event ``i`` is poison: it has one final answer of the fallback and one dead letter with the
    reason.
    """
    assert not verdict.broken, str(verdict)
    (answer,) = _poison(settlement)
    assert (answer["event_id"], answer["source"], answer["final"]) == (f"e{i}", "static", True)
    (letter,) = settlement.reader.records[settlement.dead]
    assert (letter.header("failsoft-error-kind"), letter.number("failsoft-crashes")) == ("poison", crashes)
    assert f"died {crashes} times" in (letter.header("failsoft-error-message") or "")


@pytest.mark.parametrize("lanes", [pytest.param(2, marks=pytest.mark.long), 4])
def test_an_event_that_kills_its_worker_is_found_in_four_deaths(
    kafka: Broker, name: str, tmp_path: Path, lanes: int
) -> None:
    """A poison record is dead-lettered after four deaths: in the first batch after a start, among 64 records, and alone
    twice.

    All other events are answered by the primary.
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=lanes)
    with running(pipeline) as settlement:
        pipeline.publish([*events(N // 2), _deadly(N // 2), *events(N // 2 - 1, start=N // 2 + 1)])
        restarted = Restarted(pipeline)
        restarted.until_answered(settlement, N)
        assert restarted.worker.drain() == 0, restarted.worker.tail()
        verdict = settlement.verdict()
    _convicted(settlement, verdict, N // 2, 4)
    assert restarted.deaths == 4
    assert verdict.counts == {"primary": N - 1, "fallback: poison": 1}


@pytest.mark.long
def test_one_that_comes_in_the_middle_costs_one_death_more(kafka: Broker, name: str, tmp_path: Path) -> None:
    """A poison record in mid-run costs a fifth death: a worker that has caught up writes no crash markers."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    with running(pipeline) as settlement:
        pipeline.publish(events(400))
        restarted = Restarted(pipeline)
        restarted.until_answered(settlement, 400)
        pipeline.publish([_deadly(400), *events(100, start=401)])
        restarted.until_answered(settlement, 501)
        assert restarted.worker.drain() == 0, restarted.worker.tail()
        verdict = settlement.verdict()
    _convicted(settlement, verdict, 400, 4)
    assert restarted.deaths == 5
    assert verdict.counts == {"primary": 500, "fallback: poison": 1}


def test_a_retry_that_kills_its_worker_is_confirmed_by_the_fallback(kafka: Broker, name: str, tmp_path: Path) -> None:
    """A retry that kills its worker is poison: its provisional answer is confirmed, and the ladder goes on."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    with running(pipeline) as settlement:
        pipeline.switch.touch()
        pipeline.publish([_deadly(0), *events(200, start=1)])
        restarted = Restarted(pipeline)
        restarted.until_answered(settlement, 201)
        pipeline.switch.unlink()

        def settled() -> bool:
            restarted.look()
            return bool(_poison(settlement))

        settlement.reader.until(settled, 200, "an answer with reason poison")
        assert restarted.worker.drain() == 0, restarted.worker.tail()
        verdict = settlement.verdict()
    _convicted(settlement, verdict, 0, 4)
    assert verdict.counts == {"primary": 200, "confirmed: poison": 1}
