"""The fleet breaker of three workers on a real Kafka: it opens everywhere, survives its owner, and ignores one worker
that fails alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from failsoft.schemas.fleet.breaker import Action, Command
from tests.integration import fleet
from tests.integration.pipeline import Pipeline, Worker, events, running
from tests.integration.verifier import Settlement
from tests.kafka import Broker, produce, wait_for

WITHIN = 0.5
"""Seconds from the first failing batch to *open* on all three; ``python -m benchmarks.fleet`` shows the distribution.
"""

WAKES = 4
"""Processes that have to wake up one after the other: the broker with a report, the owner, the broker with its row, the
workers. Each may be as late as the machine's worst stall.
"""


@pytest.fixture
def pipeline(kafka: Broker, name: str, tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path, kafka.bootstrap, name, minimum_calls=20, partitions=6, delays=["1s", "2s"])


@pytest.fixture
def settlement(pipeline: Pipeline) -> Iterator[Settlement]:
    with running(pipeline) as found:
        yield found


def _three(pipeline: Pipeline) -> list[Worker]:
    workers = [pipeline.start(f"w{i}", switched=True) for i in range(3)]
    fleet.wait_fleet(workers)
    wait_for(lambda: all(fleet.lines(w, "lane open") for w in workers), 60, "lanes on all three")
    return workers


def _attempts(settlement: Settlement) -> set[str | None]:
    return {r.header("failsoft-attempt") for topic in settlement.rungs for r in settlement.reader.records[topic]}


def test_an_outage_opens_all_three_and_burns_no_attempt(pipeline: Pipeline, settlement: Settlement) -> None:
    """An outage opens the breaker on all workers within milliseconds of the first failing batches.

    While it is open, no attempt is used up. Afterwards each held record is corrected by its first retry.
    """
    workers = _three(pipeline)
    pipeline.publish(events(60))  # few: recent successes delay the failure rate's rise
    settlement.wait_answered(60)
    with fleet.stalls() as worst:
        pipeline.switch.touch()
        pipeline.publish(events(3_540, start=60))
        held = ("open", "half_open")
        wait_for(lambda: all(fleet.state(w) in held for w in workers), 60, "the breaker open on all three")
    settlement.wait_answered(3_600)
    first = min(line.at for w in workers for line in fleet.lines(w, "answer degraded"))
    opened = [min(m.at for m in fleet.lines(w, "breaker moved") if m.said["to"] == "open") for w in workers]
    assert max(opened) - first < WITHIN + WAKES * worst[0], ([at - first for at in opened], worst)
    # Several cycles of waiting and probing: open_for is 1 s, and each failed probe doubles it.
    wait_for(lambda: max(r["reopenings"] for r in fleet.rows(pipeline)) >= 3, 60, "three failed half-open cycles")
    pipeline.switch.unlink()
    settlement.wait_final(3_600)
    wait_for(lambda: {fleet.state(w) for w in workers} == {"closed"}, 60, "the breaker closed on all three")
    verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
    assert not [fate for fate in verdict.counts if fate.startswith("confirmed")], verdict.counts
    assert _attempts(settlement) == {"0"}, "a record used up a rung while the breaker was open"
    assert {a["to"] for a in fleet.alerts(pipeline) if a["name"] == "breaker"} >= {"open", "half_open", "closed"}
    for worker in workers:
        assert worker.drain() == 0, worker.tail()


def test_the_owner_dies_while_the_breaker_is_open(pipeline: Pipeline, settlement: Settlement) -> None:
    """After kill -9 of the owner, another worker takes over within the session timeout. The breaker stays open and
    probing continues.
    """
    workers = _three(pipeline)
    pipeline.switch.touch()
    pipeline.publish(events(1_200))
    wait_for(lambda: all(fleet.state(w) in ("open", "half_open") for w in workers), 60, "open on all three")
    killed = wait_for(lambda: fleet.owner(pipeline, workers), 60, "an owner")
    # The local breakers open first: the owner may not have written a row yet.
    before = wait_for(lambda: fleet.rows(pipeline), 60, "the breaker's row")[-1]["generation"]
    killed.kill()
    others = [w for w in workers if w is not killed]
    wait_for(lambda: fleet.owner(pipeline, others) in others, 60, "another owner")
    wait_for(lambda: fleet.rows(pipeline)[-1]["generation"] > before + 1, 60, "probes under the new owner")
    for worker in others:
        assert fleet.state(worker) in ("open", "half_open")
        assert not [m for m in fleet.lines(worker, "breaker moved") if m.said["to"] == "closed"]
    pipeline.switch.unlink()
    settlement.wait_final(1_200)
    verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)


def test_orders_that_come_in_a_burst_are_all_obeyed(pipeline: Pipeline, settlement: Settlement) -> None:
    """Every order of a burst is obeyed: an owner's older writes that return from Kafka do not undo its newer ones."""
    worker = pipeline.start("w0", switched=True)
    fleet.wait_fleet([worker])
    actions = [Action.DISABLE, Action.CLOSE] * 20
    orders = [Command(fleet.KEY, action, "a test", "", at).to_bytes() for at, action in enumerate(actions)]
    produce(pipeline.bootstrap, f"{pipeline.name}.control", [(None, order, [], 0) for order in orders])
    wait_for(lambda: len(fleet.rows(pipeline)) >= len(orders), 60, "a row for each order")
    wait_for(lambda: _generations(worker)[-1:] == [len(orders)], 30, "the last one obeyed")
    assert [r["generation"] for r in fleet.rows(pipeline)] == [*range(1, len(orders) + 1)]
    assert _generations(worker) == sorted(_generations(worker)), "the worker went back to an older row"


def _generations(worker: Worker) -> list[int]:
    return [m.said["generation"] for m in fleet.lines(worker, "breaker moved")]


def test_one_sick_worker_does_not_open_the_fleet(pipeline: Pipeline, settlement: Settlement, tmp_path: Path) -> None:
    """One worker of three that fails alone answers from the fallback and is reported; the others are unaffected."""
    switch, pipeline.switch = pipeline.switch, tmp_path / "fail alone"
    sick = pipeline.start("w0", switched=True)
    pipeline.switch = switch
    well = [pipeline.start(f"w{i}", switched=True) for i in (1, 2)]
    fleet.wait_fleet([sick, *well])
    wait_for(lambda: all(fleet.lines(w, "lane open") for w in [sick, *well]), 60, "lanes on all three")
    (tmp_path / "fail alone").touch()
    published = 0

    def alerted() -> bool:
        nonlocal published
        pipeline.publish(events(300, start=published))
        published += 300
        return any(a["name"] == "node_sick" and a["to"] == "sick" for a in fleet.alerts(pipeline))

    wait_for(alerted, 60, "the node_sick alert")
    wait_for(lambda: fleet.gauge(sick, "failsoft_node_sick") == 1, 30, "the sick worker's own metric")
    settlement.wait_answered(published)
    alert = next(a for a in fleet.alerts(pipeline) if a["name"] == "node_sick")
    assert alert["worker"] == "w0" and alert["key"] == fleet.KEY
    assert fleet.lines(sick, "node sick") and {fleet.state(w) for w in well} == {"closed"}
    assert {r["state"] for r in fleet.rows(pipeline)} == {"closed"}
    (tmp_path / "fail alone").unlink()
    settlement.wait_final(published)
    verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
