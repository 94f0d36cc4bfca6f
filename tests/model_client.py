"""A client of the model broker, in place of aiokafka's: a script decides which requests and answers get lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, RequestTimedOutError

from tests.model_broker import NODES, ModelBroker

FAULTS = (
    "ok",
    "not sent",
    "lost",  # the request does not arrive
    "unanswered",  # the request is obeyed, and its answer does not arrive
    "late",  # the client gives up; the request may arrive at any time after that
    "arrive",  # the late requests arrive now, before this one
    "move coordinators",
    "move leaders",
    "loading",
    "rebalance",
    "expire",
    "refuse",  # the next batch
)
MOST_WAITS = 400
"""More waits than this in one test are a loop without end."""


class Network:
    """What several clients share: the broker, and the late requests."""

    def __init__(self, broker: ModelBroker, group: str = "g") -> None:
        self.broker, self.group_name = broker, group
        self.late: deque[tuple[int, Any]] = deque()

    def arrive(self) -> None:
        """All late requests reach the broker. Nobody reads the answers."""
        while self.late:
            self.broker.handle(*self.late.popleft())

    def cause(self, event: str) -> None:
        """Let one of FAULTS happen that needs no request."""
        broker = self.broker
        if event == "arrive":
            self.arrive()
        elif event == "move coordinators":
            for kind, node in broker.coordinators.items():
                broker.coordinators[kind] = other(node)
        elif event == "move leaders":
            for log in broker.logs.values():
                log.leader = other(log.leader)
        elif event == "loading":
            broker.loading += 2
        elif event == "rebalance":
            broker.rebalance(self.group_name)
        elif event == "expire":
            broker.expire()
        elif event == "refuse":
            broker.refuse_produce += 1


def other(node: int) -> int:
    return NODES[1] if node == NODES[0] else NODES[0]


class ModelClient:
    """Has the methods of AIOKafkaClient that ``failsoft.workers.kafka`` calls.

    Args:
        network: the broker and the late requests.
        script: one of FAULTS for each request that is sent; after them, all goes well.
    """

    def __init__(self, network: Network, script: Iterable[str] = ()) -> None:
        self.network, self.broker = network, network.broker
        self.script = deque(script)
        self.sent: list[Any] = []
        self.waits: list[float] = []
        self.cluster: Any = SimpleNamespace(
            leader_for_partition=lambda tp: self.leaders.get(tp),
            partitions_for_topic=lambda t: {tp.partition for tp in self.leaders if tp.topic == t} or None,
            unauthorized_topics=set(),
        )
        self.leaders: dict[TopicPartition, int] = {}

    def get_random_node(self) -> int:
        return NODES[0]

    def add_topic(self, topic: str) -> None:
        self.force_metadata_update()

    async def close(self) -> None:
        """Nothing to close."""

    def force_metadata_update(self) -> None:
        self.leaders = {tp: log.leader for tp, log in self.broker.logs.items()}

    async def coordinator_lookup(self, kind: int, key: str) -> int:
        await asyncio.sleep(0)
        return self.broker.coordinators["transaction" if kind else "group"]

    async def sleep(self, seconds: float) -> None:
        """In place of asyncio.sleep."""
        self.waits.append(seconds)
        assert len(self.waits) < MOST_WAITS, "the client repeats itself without end"
        await asyncio.sleep(0)

    async def send(self, node: int, request: Any, *, group: Any) -> Any:
        struct = request.prepare({request.struct.API_KEY: (0, 99)})
        self.sent.append(struct)
        fault = self.script.popleft() if self.script else "ok"
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.network.late.append((node, struct))  # it is in the socket's buffer already
            raise
        if fault == "not sent":
            raise NodeNotReadyError("no connection")
        if fault == "lost":
            raise KafkaConnectionError("broken")
        if fault == "late":
            self.network.late.append((node, struct))
            raise RequestTimedOutError
        self.network.cause(fault)
        response = self.broker.handle(node, struct)
        await asyncio.sleep(0)
        if fault == "unanswered":
            raise KafkaConnectionError("broken")
        return response
