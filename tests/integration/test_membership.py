"""Members of a group on a real Kafka: who stays through rebalances and moves of the coordinator, and who must end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.client import AIOKafkaClient
from confluent_kafka import KafkaException

from failsoft.topics.embedded.broker import Embedded
from failsoft.workers.client_timeouts import ClientTimeouts
from failsoft.workers.kafka.group_client import GroupClient
from failsoft.workers.kafka.group_coordinator import MemberRemoved
from failsoft.workers.kafka.membership import GroupSettings, Membership
from tests.cluster import Cluster
from tests.kafka import Broker, create_topic, eventually

WITHIN = 60.0


class Worker(ConsumerRebalanceListener):  # type: ignore[misc]
    """A member with the clients of a worker, and what it has.

    Attributes:
        partitions: those of the present generation.
        beats: the heartbeats that were answered without an error.
    """

    def __init__(self, bootstrap: str, group: str, id: str) -> None:
        settings = GroupSettings(group, id, heartbeat_interval_ms=200)
        options: Mapping[str, Any] = {"bootstrap_servers": bootstrap, "retry_backoff_ms": 50}
        join_ms, group_ms = (round(1000 * seconds) for seconds in (ClientTimeouts().join, ClientTimeouts().group))
        joins = AIOKafkaClient(request_timeout_ms=join_ms, **options)
        client = GroupClient(joins, request_timeout_ms=group_ms, **options)
        self.membership = Membership(client, settings)
        self.partitions: set[TopicPartition] = set()
        self.beats = 0
        send = client.send

        async def noting(node: int, request: Any, **more: Any) -> Any:
            answer = await send(node, request, **more)
            self.beats += type(request).__name__ == "HeartbeatRequest" and not answer.error_code
            return answer

        client.send = noting

    def on_partitions_revoked(self, revoked: Any) -> None:
        self.partitions = set()

    def on_partitions_assigned(self, assigned: Any) -> None:
        self.partitions = set(assigned)

    async def stays(self) -> None:
        """Returns when it has had answers to some more heartbeats, and was not removed meanwhile."""
        before = self.beats

        def beat() -> bool:
            self.membership.check()
            return self.beats >= before + 5

        await eventually(beat, WITHIN, "heartbeats")


@asynccontextmanager
async def member(bootstrap: str, name: str, id: str) -> AsyncIterator[Worker]:
    worker = Worker(bootstrap, name, id)
    try:
        await asyncio.wait_for(worker.membership.join([name], worker), WITHIN)
        yield worker
    finally:
        await worker.membership.stop()


async def test_of_two_processes_with_one_id_the_first_ends(kafka: Broker, name: str) -> None:
    """The other one keeps the partitions: the first does not join again."""
    await asyncio.to_thread(create_topic, kafka.bootstrap, name, 2)
    async with member(kafka.bootstrap, name, "w0") as first:
        await first.stays()
        async with member(kafka.bootstrap, name, "w0") as second:

            def removed() -> str:
                try:
                    first.membership.check()
                except MemberRemoved as error:
                    return str(error)
                return ""

            assert "another process has the id w0" in await eventually(removed, WITHIN, "the first to be removed")
            await second.stays()
            assert len(second.partitions) == 2


async def test_healthy_members_stay_through_rebalances(kafka: Broker, name: str) -> None:
    """One comes, and one is gone until its session is over."""
    await asyncio.to_thread(create_topic, kafka.bootstrap, name, 2)
    async with member(kafka.bootstrap, name, "w0") as stayer:
        assert len(stayer.partitions) == 2
        async with member(kafka.bootstrap, name, "w1") as other:
            await eventually(lambda: len(stayer.partitions) == len(other.partitions) == 1, WITHIN, "one each")
            await stayer.stays()
            await other.stays()
        await eventually(lambda: len(stayer.partitions) == 2, WITHIN, "both again")
        await stayer.stays()


async def test_a_member_stays_through_a_restart_of_the_broker(tmp_path: Path, name: str) -> None:
    """Its coordinator has read the group from its log, and waits for the members for a new session."""
    with Embedded(tmp_path) as broker:
        await asyncio.to_thread(create_topic, broker.bootstrap, name, 2)
        async with member(broker.bootstrap, name, "w0") as worker:
            generation = worker.membership.member().generation
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
            await worker.stays()
            assert len(worker.partitions) == 2 and worker.membership.member().generation == generation


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=lambda how: how.name)
async def test_a_member_stays_when_its_coordinator_vanishes(tmp_path: Path, name: str, how: signal.Signals) -> None:
    """Killed, or silent: then a heartbeat has no answer, and no connection breaks."""
    with Cluster(tmp_path) as cluster:
        await asyncio.to_thread(create_topic, cluster.bootstrap, name, 2)
        async with member(cluster.bootstrap, name, "w0") as worker, member(cluster.bootstrap, name, "w1") as other:
            await eventually(lambda: len(worker.partitions) == len(other.partitions) == 1, WITHIN, "one each")
            old = await asyncio.to_thread(cluster.coordinator_of_group, name)
            broker = psutil.Process(cluster.nodes[old].pid)
            broker.send_signal(how)
            try:
                await eventually(lambda: asyncio.to_thread(_moved, cluster, name, old), WITHIN, "another coordinator")
                await worker.stays()
                await other.stays()
                assert len(worker.partitions) == len(other.partitions) == 1
            finally:
                if broker.is_running():
                    broker.send_signal(signal.SIGCONT)


def _moved(cluster: Cluster, name: str, old: int) -> bool:
    try:
        return cluster.coordinator_of_group(name) not in (old, -1)
    except KafkaException:  # the broker that was asked is the one that is silent
        return False
