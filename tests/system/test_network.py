"""A failing network between workers and a cluster of three: slow, reset, cut, and silent past the session timeout.

The workers reach each broker through a proxy (tests.proxy). The test's own clients do not, so they see everything.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.integration.pipeline import Pipeline, Worker, events, running
from tests.kafka import wait_for
from tests.system.feed import Feed
from tests.system.recovery import answered_everywhere, kept, longest_stall

pytestmark = pytest.mark.long  # three brokers fill two cores for minutes: make long

N = 6_000
RATE = 500.0
FAILING = 200

TAKEN_OVER = 30.0
"""Seconds from the silence until the other worker has answered in every lane. The session timeout is 6; the rest is a
rebalance, and the wait for the silent worker's open transaction: 8 until it times out (workers.kafka.clients), and up
to 10 until the broker looks.
"""

GIVEN_UP = 27.0
"""Seconds from the silence until a worker in a commit has ended: 12 for the commit (workers.lanes.committer), at most 5
to end (workers.process.composition), and a margin for a busy machine.
"""

BACK = 60.0
"""Seconds from the healing until a worker that was only fetching is back. Its requests time out after at most
5 (workers.kafka.clients), and its connections are opened again.
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests of this file."""
    with Cluster(tmp_path_factory.mktemp("network")) as started:
        yield started


@pytest.fixture(autouse=True)
def whole(cluster: Cluster) -> None:
    """Each test begins with three brokers in sync and a working network."""
    cluster.whole()


def test_a_worker_cut_off_for_longer_than_its_session(cluster: Cluster, name: str, tmp_path: Path) -> None:
    """A worker silenced past its session timeout loses its lanes to another worker, and what it began is never visible.

    Its connections stay up while nothing passes. Within a bound it ends by itself or joins again.
    """
    pipeline = Pipeline(tmp_path / "cut", cluster.bootstrap, name, workers_bootstrap=cluster.proxied)
    beside = Pipeline(tmp_path / "beside", cluster.bootstrap, name)
    with running(pipeline) as settlement:
        try:
            cut, other = pipeline.start("w0"), beside.start("w1")
            cut.wait_ready()
            other.wait_ready()
            with Feed(pipeline, N, RATE, FAILING):
                settlement.wait_answered(N // 10)
                lanes = _opened(cut)
                assert lanes, "the worker has no lane to lose"
                for proxy in cluster.proxies.values():
                    proxy.silence()
                silent = time.monotonic()
                answered_everywhere(settlement, TAKEN_OVER)
                taken = time.monotonic() - silent
                wait_for(lambda: _ended(cut) or time.monotonic() > silent + GIVEN_UP, GIVEN_UP, "the worker's end")
                hung = time.monotonic() - silent
            settlement.wait_answered(pipeline.published, 90)  # by the other worker alone
            for proxy in cluster.proxies.values():
                proxy.heal()
            wait_for(lambda: _ended(cut) or _opened(cut) > lanes, BACK, "the worker to end or join again")
            print(
                f"lanes taken over after {taken:.1f} s; "
                f"the worker {'ended' if _ended(cut) else 'went on'}, {hung:.1f} s"
            )
            if _ended(cut):
                assert cut.process.returncode == 1, cut.tail()
                cut = pipeline.start("w0")  # as a supervisor does
            cut.wait_ready()
            pipeline.publish(events(N // 4, start=pipeline.published, bad_every=FAILING))
            settlement.wait_final(pipeline.published)
            for worker in (cut, other):
                assert worker.drain() == 0, worker.tail()
            verdict = settlement.verdict()
        finally:
            beside.stop()
    kept(verdict, pipeline.published, FAILING)


def _ended(worker: Worker) -> bool:
    return worker.process.poll() is not None


def _opened(worker: Worker) -> int:
    return worker.log.read_text(errors="replace").count('"lane open"')


def test_slow_reset_and_cut(cluster: Cluster, name: str, tmp_path: Path) -> None:
    """Workers go on, only slower, through round trips of 200 ms, resets of every connection, and three seconds without
    a network.
    """
    pipeline = Pipeline(tmp_path, cluster.bootstrap, name, workers_bootstrap=cluster.proxied)
    with running(pipeline) as settlement:
        supervisor = pipeline.start("w", "--processes", "2")
        with Feed(pipeline, N, RATE, FAILING) as feed:
            settlement.wait_answered(N // 20)
            for proxy in cluster.proxies.values():
                proxy.latency(0.1)
            for _ in range(3):
                answered_everywhere(settlement)
            for proxy in cluster.proxies.values():
                proxy.latency(0.0)
            for _ in range(3):
                for proxy in cluster.proxies.values():
                    proxy.reset()
                answered_everywhere(settlement)
            for proxy in cluster.proxies.values():
                proxy.cut()
            feed.wait_more(3 * round(RATE))
            for proxy in cluster.proxies.values():
                proxy.heal()
            answered_everywhere(settlement)
        settlement.wait_final(pipeline.published, 120)
        assert supervisor.drain(60) == 0, supervisor.tail()
        verdict = settlement.verdict()
        print(f"longest stall of a lane: {longest_stall(settlement):.1f} s")
    kept(verdict, pipeline.published, FAILING)
