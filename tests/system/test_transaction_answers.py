"""Requests of a transaction that a failing network answers late, twice or never, sends twice, or delivers long after.

Each fault hits each request of a transaction once, under load, on three brokers behind proxies. Nothing is lost,
doubled, early or never final.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.answers import RequestFault, Trap
from tests.cluster import Cluster
from tests.integration.pipeline import Pipeline
from tests.integration.verifier import Settlement
from tests.kafka import wait_for
from tests.system.faulty_run import settle
from tests.system.recovery import answered_everywhere
from tests.system.soak.crew import Crew
from tests.system.stops import REQUESTS

pytestmark = pytest.mark.long  # three brokers fill two cores for minutes: make long

N = 2_000
RATE = 200.0
FAILING = 100

WORKERS = ("w0", "w1")

SPRUNG_WITHIN = 30.0
"""Seconds for a worker to send the request that a trap waits for; it may be starting again."""

LATE = {
    RequestFault.LATE: 1.5,  # within the producer's timeout of 2.5: the answer counts
    RequestFault.STALE: 1.0,  # some transactions later
}

PROTOCOLS = {"transactions v2": (), "transactions v1": ("transactions-v1",)}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests of this file."""
    with Cluster(tmp_path_factory.mktemp("answers")) as started:
        yield started


@pytest.fixture(autouse=True)
def whole(cluster: Cluster) -> None:
    """Each test begins with three brokers in sync and a working network."""
    cluster.whole()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("fault", RequestFault, ids=str)
def test_a_request_of_a_transaction_goes_wrong(
    cluster: Cluster, name: str, tmp_path: Path, fault: RequestFault, protocol: str
) -> None:
    """Each request of a transaction meets the fault twice; afterwards every lane answers again, and all is settled."""
    pipeline = Pipeline(tmp_path, cluster.bootstrap, name, workers_bootstrap=cluster.proxied)

    def faults(settlement: Settlement) -> None:
        for request in [*REQUESTS, *REQUESTS]:
            sprung = cluster.traps.sprung
            cluster.traps.set(Trap(request, fault, LATE.get(fault, 0.0), WORKERS))
            wait_for(lambda sprung=sprung: cluster.traps.sprung > sprung, SPRUNG_WITHIN, f"{request}: {fault}")
            answered_everywhere(settlement)

    settle(pipeline, Crew(pipeline, len(WORKERS), PROTOCOLS[protocol]), faults, N, RATE, FAILING)
