"""Workers killed, stopped and cut off during 20,000 events: nothing is lost, doubled, early or never final.

Each test publishes first. A fault starts after a number of committed answers, never after a number of seconds.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.pipeline import Pipeline, Worker, events, running
from tests.integration.verifier import Settlement, Verdict
from tests.isolated_models import ended
from tests.kafka import Broker, start_broker, wait_for

N = 20_000
FAILING = 200
"""The primary never answers one event in FAILING, so that the ladder is in use while workers die."""


def _all_kept(verdict: Verdict, published: int) -> None:
    assert not verdict.broken, str(verdict)
    assert len(verdict.fates) == published
    assert verdict.counts == {
        "primary": published - published // FAILING,
        "confirmed: bad_output": published // FAILING,
    }


def test_kill_9_again_and_again(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Two workers killed in turn, each with events unanswered, still settle every event once."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    with running(pipeline) as settlement:
        pipeline.publish(events(N, bad_every=FAILING))
        workers = {id: pipeline.start(id) for id in ("w0", "w1")}
        outstanding = []
        for i, share in enumerate((0.02, 0.15, 0.3, 0.45)):
            settlement.wait_answered(round(share * N))
            victim = f"w{i % 2}"
            workers[victim].kill()
            outstanding.append(N - settlement.answered())
            workers[victim] = pipeline.start(victim)
        settlement.wait_final(N)
        # At least two kills must come with many events unanswered; on a quick machine the later kills may come too
        # late.
        assert sum(n > N / 10 for n in outstanding) >= 2, outstanding
        for worker in workers.values():
            assert worker.drain() == 0, worker.tail()
        verdict = settlement.verdict()
    _all_kept(verdict, N)


def test_kill_9_of_the_only_worker_while_retries_wait(kafka: Broker, name: str, tmp_path: Path) -> None:
    """A new worker attempts the retries that a killed worker left on the rungs, when they are due."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    with running(pipeline) as settlement:
        for i in range(3):
            # More events each time: the earlier ones may all have left the ladder before the kill.
            pipeline.publish(events(100, start=100 * i, bad_every=4))
            seen = _on_rungs(settlement)
            worker = pipeline.start()
            settlement.reader.until(lambda seen=seen: _on_rungs(settlement) > seen, 90, "more records on the rungs")
            worker.kill()
        pipeline.publish(events(100, start=300, bad_every=4))
        worker = pipeline.start()
        settlement.wait_final(400)
        assert worker.drain() == 0, worker.tail()
        verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
    assert verdict.counts == {"primary": 300, "confirmed: bad_output": 100}


def _on_rungs(settlement: Settlement) -> int:
    return sum(len(settlement.reader.records[topic]) for topic in settlement.rungs)


def test_at_least_once_loses_nothing_to_kill_9(kafka: Broker, name: str, tmp_path: Path) -> None:
    """With guarantee = "at_least_once", kill -9 may double answers and loses none."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, guarantee="at_least_once")
    with running(pipeline) as settlement:
        pipeline.publish(events(N))
        for share in (0.02, 0.2):
            worker = pipeline.start()
            settlement.wait_answered(round(share * N))
            worker.kill()
        worker = pipeline.start()
        settlement.reader.until(lambda: len(_answered_ids(settlement)) == N, 120, "every event answered")
        assert worker.drain() == 0, worker.tail()
        verdict = settlement.verdict()
    assert verdict.broken.keys() <= {"doubled"}, str(verdict)
    assert verdict.counts == {"primary": N}


def _answered_ids(settlement: Settlement) -> set[str]:
    return {(r.value or b"").split(b'"', 4)[3].decode() for r in settlement.reader.records[settlement.scored]}


def test_a_stopped_worker_comes_back_after_others_took_its_lanes(kafka: Broker, name: str, tmp_path: Path) -> None:
    """A worker stopped past its session timeout and continued after the takeover commits nothing that readers see."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    with running(pipeline) as settlement:
        zombie, other = pipeline.start("w0"), pipeline.start("w1")
        zombie.wait_ready()
        other.wait_ready()
        pipeline.publish(events(N // 2, bad_every=FAILING))
        settlement.wait_answered(N // 20)
        zombie.signal(signal.SIGSTOP)
        settlement.wait_final(N // 2)  # half of the lanes wait for the takeover: the session timeout is 6 s
        pipeline.publish(events(N // 4, start=N // 2, bad_every=FAILING))
        settlement.wait_answered(N // 2 + N // 40)
        zombie.signal(signal.SIGCONT)
        pipeline.publish(events(N // 4, start=3 * N // 4, bad_every=FAILING))
        settlement.wait_final(N)
        assert zombie.drain() in (0, 1), zombie.tail()
        assert other.drain() == 0, other.tail()
        verdict = settlement.verdict()
    _all_kept(verdict, N)


def test_a_rolling_restart(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Workers that join, and that leave by SIGTERM, drain and exit 0; every event is settled once."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    with running(pipeline) as settlement:
        first = pipeline.start("w0")
        first.wait_ready()
        pipeline.publish(events(N // 2, bad_every=FAILING))
        settlement.wait_answered(N // 20)
        second = pipeline.start("w1")  # it joins: half of the lanes move to it
        second.wait_ready()
        pipeline.publish(events(N // 2, start=N // 2, bad_every=FAILING))
        settlement.wait_answered(N // 2 + N // 20)
        assert first.drain() == 0, first.tail()  # it leaves: its lanes move again
        third = pipeline.start("w0")
        third.wait_ready()
        settlement.wait_final(N)
        for worker in (second, third):
            assert worker.drain() == 0, worker.tail()
        verdict = settlement.verdict()
    _all_kept(verdict, N)


@pytest.fixture
def own_kafka() -> Iterator[Broker]:
    """A broker of the test's own, which it may restart."""
    broker = start_broker()
    yield broker
    broker.stop()


def test_a_broker_restarts_and_crashes(own_kafka: Broker, name: str, tmp_path: Path) -> None:
    """Supervised workers recover by themselves from a restart and a kill of the only broker."""
    pipeline = Pipeline(tmp_path, own_kafka.bootstrap, name)
    with running(pipeline) as settlement:
        pipeline.publish(events(N, bad_every=FAILING))
        supervisor = pipeline.start("w", "--processes", "2")
        settlement.wait_answered(N // 20)
        own_kafka.restart()
        settlement.wait_answered(N)
        pipeline.publish(events(N // 2, start=N, bad_every=FAILING))
        settlement.wait_answered(N + N // 20)
        own_kafka.kill()
        own_kafka.start()
        try:
            settlement.wait_final(N + N // 2)
        except AssertionError:
            _excuse(own_kafka)
            raise
        children = psutil.Process(supervisor.process.pid).children(recursive=True)
        assert supervisor.drain(60) == 0, supervisor.tail()
        wait_for(lambda: all(map(ended, children)), 30, "the end of its workers")
        verdict = settlement.verdict()
        if verdict.broken:
            _excuse(own_kafka)
    _all_kept(verdict, N + N // 2)


def _excuse(broker: Broker) -> None:
    """Marks the test as expected to fail if the broker logged lost transaction markers: then Kafka, not a worker,
    failed.
    """
    if lost := broker.lost_markers():
        pytest.xfail(f"Kafka lost the markers of {len(lost)} transactions (docs/decisions/0008): {lost[0]}")


def test_a_supervised_worker_is_replaced_after_kill_9(kafka: Broker, name: str, tmp_path: Path) -> None:
    """``failsoft worker --processes 2`` starts a killed process again, and every event is settled once."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    with running(pipeline) as settlement:
        pipeline.publish(events(N, bad_every=FAILING))
        supervisor = pipeline.start("w", "--processes", "2")
        settlement.wait_answered(N // 50)
        before = _children(supervisor)
        before[0].kill()
        wait_for(lambda: len(_children(supervisor)) == 2 and _children(supervisor) != before, 60, "a replacement")
        settlement.wait_final(N)
        assert supervisor.drain(60) == 0, supervisor.tail()
        verdict = settlement.verdict()
    _all_kept(verdict, N)


def _children(worker: Worker) -> list[psutil.Process]:
    return psutil.Process(worker.process.pid).children()
