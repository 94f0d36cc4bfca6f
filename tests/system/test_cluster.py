"""Three brokers killed and restarted under two workers: nothing is lost, doubled, early or never final.

Unlike with one broker, lost transaction markers are no excuse: with replicas a leader always receives the markers
(docs/decisions/0008-leaderless-markers.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from failsoft.workers.kafka import offset_fetch
from tests.cluster import NODES, Cluster
from tests.integration.pipeline import Pipeline, events, running
from tests.integration.verifier import Settlement
from tests.kafka import create_topic, produce
from tests.system.feed import Feed
from tests.system.recovery import STALL, answered_everywhere, kept, longest_stall

pytestmark = pytest.mark.long  # three brokers fill two cores for minutes: make long

N = 20_000
RATE = 800.0
FAILING = 200
"""The primary never answers one event in FAILING, so that the ladder is in use while brokers die."""

Disturb = Callable[[Settlement], None]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests of this file."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture(autouse=True)
def whole(cluster: Cluster) -> None:
    """Each test begins with three brokers in sync and a working network."""
    cluster.whole()


def test_topics_have_a_copy_on_each_broker(cluster: Cluster, name: str, tmp_path: Path) -> None:
    """``failsoft topics apply`` gives each topic three replicas by default; a worker creates no other topic."""
    pipeline = Pipeline(tmp_path, cluster.bootstrap, name)
    with running(pipeline) as settlement:
        worker = pipeline.start()
        worker.wait_ready()
        pipeline.publish(events(100))
        settlement.wait_final(100)
        copies = cluster.replicas(name)
        assert worker.drain() == 0, worker.tail()
    assert set(copies.values()) == {3}, copies
    assert len(copies) == 11, copies


async def test_offsets_are_asked_of_whoever_coordinates_the_group(cluster: Cluster, name: str) -> None:
    """Offsets are read from the group's coordinator.

    A broker that is not the coordinator answers with an error and no partitions. That must not be read as a group
    without offsets.
    """
    create_topic(cluster.bootstrap, name)
    produce(cluster.bootstrap, name, [(None, b"a", [], 0)])
    offset_fetch.install()
    place = TopicPartition(name, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap, group_id=name, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([place])
        await consumer.commit({place: 1})
        coordinator = consumer._coordinator
        others = [node for node in NODES if node != coordinator.coordinator_id]
        for other in others:
            coordinator.coordinator_id = other
            assert await consumer.committed(place) == 1
            assert coordinator.coordinator_id not in others
    finally:
        await consumer.stop()


def test_the_coordinators_brokers_are_killed_and_come_back(cluster: Cluster, name: str, tmp_path: Path) -> None:
    """After kill -9 of the group coordinator and of a transaction coordinator, workers go on with the other two
    brokers.
    """

    def disturb(settlement: Settlement) -> None:
        _kill(cluster, cluster.coordinator_of_group(name), settlement)
        _kill(cluster, cluster.coordinator_of_transactions(f"{name}.w-0"), settlement)

    _under_load(cluster, name, tmp_path, disturb)


def test_a_rolling_restart_of_all_brokers(cluster: Cluster, name: str, tmp_path: Path) -> None:
    """Workers survive a rolling restart: each broker is shut down in order, and the next one follows when it is in
    sync.
    """

    def disturb(settlement: Settlement) -> None:
        for node in NODES:
            _roll(cluster, node, settlement)

    _under_load(cluster, name, tmp_path, disturb, N // 2)


@pytest.mark.timeout(1800)
def test_every_broker_is_killed_and_restarted_twice(cluster: Cluster, name: str, tmp_path: Path) -> None:
    """Workers survive six kills and six controlled restarts of brokers under at least 60,000 live events."""

    def disturb(settlement: Settlement) -> None:
        for node in (*NODES, *NODES):
            _kill(cluster, node, settlement)
            _roll(cluster, node, settlement)

    _under_load(cluster, name, tmp_path, disturb, 3 * N)


def _kill(cluster: Cluster, node: int, settlement: Settlement) -> None:
    cluster.nodes[node].kill()
    answered_everywhere(settlement)
    cluster.nodes[node].start()
    cluster.wait_in_sync()


def _roll(cluster: Cluster, node: int, settlement: Settlement) -> None:
    cluster.nodes[node].restart()
    cluster.wait_in_sync()
    answered_everywhere(settlement)


def _under_load(cluster: Cluster, name: str, folder: Path, disturb: Disturb, n: int = N) -> None:
    """Runs ``disturb`` under at least ``n`` live events and two supervised workers; then settles each event."""
    pipeline = Pipeline(folder, cluster.bootstrap, name)
    with running(pipeline) as settlement:
        supervisor = pipeline.start("w", "--processes", "2")
        with Feed(pipeline, n, RATE, FAILING):
            settlement.wait_answered(n // 50)
            disturb(settlement)
        settlement.wait_final(pipeline.published, 120)
        assert supervisor.drain(60) == 0, supervisor.tail()
        verdict = settlement.verdict()
        stall = longest_stall(settlement)
    print(f"{pipeline.published} events; longest stall of a lane: {stall:.1f} s")
    assert not cluster.lost_markers(), cluster.lost_markers()[0]
    kept(verdict, pipeline.published, FAILING)
    assert stall < STALL
