"""Three real Kafka nodes for tests, each a broker and a controller, with a replica of everything on each.

Each broker has two listeners: one for the test's own clients, and one that is advertised through a proxy
(``tests.proxy``). So a worker's network can fail while the test still sees everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from failsoft.topics.embedded.broker import HOST, KafkaFailed, free_port
from failsoft.topics.embedded.cluster_id import new_id
from tests.answers import Traps
from tests.kafka import EmbeddedBroker, wait_for
from tests.proxy import Proxy

NODES = (1, 2, 3)
HEAP = "512m"
"""Heap of each node: three nodes share a small machine, and their topics are small."""

READY_WITHIN = 120.0
"""Seconds for three nodes to start at once; ten are usual on two idle cores."""

TRIES = 3
"""Attempts to start: a port that was free when chosen may be taken when it is used."""


def settings(node: int, ports: Mapping[int, Mapping[str, int]]) -> dict[str, str]:
    """The settings in which a node differs from a single one (``topics.embedded.broker.properties``)."""
    own = ports[node]
    replicas = {
        f"{topic}.replication.factor": "3"
        for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
    }
    return {
        "node.id": str(node),
        "listeners": ",".join(f"{k}://{HOST}:{own[k]}" for k in ("PLAINTEXT", "PROXIED", "CONTROLLER")),
        "advertised.listeners": f"PLAINTEXT://{HOST}:{own['PLAINTEXT']},PROXIED://{HOST}:{own['proxy']}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.quorum.voters": ",".join(f"{n}@{HOST}:{ports[n]['CONTROLLER']}" for n in NODES),
        **replicas,
        "default.replication.factor": "3",
        "min.insync.replicas": "2",
        "transaction.state.log.min.isr": "2",
        "share.coordinator.state.topic.min.isr": "2",
        # Kafka's own default; the single broker disables it because it has no other broker to hand leadership to.
        "controlled.shutdown.enable": "true",
    }


class Node(EmbeddedBroker):
    """One node of the three."""

    def __init__(self, cluster: str, data: Path, port: int, own: Mapping[str, str]) -> None:
        super().__init__(data, port, heap=HEAP, settings=own)
        self._cluster = cluster

    def format_options(self) -> list[str]:
        return ["-t", self._cluster]


class Cluster:
    """Three nodes with a proxy before each; use as ``with Cluster(folder) as cluster:``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.nodes: dict[int, Node] = {}
        self.proxies: dict[int, Proxy] = {}
        self.traps = Traps()
        self._stack = ExitStack()

    @property
    def bootstrap(self) -> str:
        """The addresses for the test's own clients, without proxies."""
        return ",".join(node.bootstrap for node in self.nodes.values())

    @property
    def proxied(self) -> str:
        """The addresses for clients whose network may fail, through the proxies."""
        return ",".join(f"{HOST}:{proxy.port}" for proxy in self.proxies.values())

    def __enter__(self) -> Self:
        for left in reversed(range(TRIES)):
            try:
                self._start(self._folder / f"try-{left}")
                return self
            except (KafkaFailed, OSError):
                self.__exit__(None, None, None)
                if not left:
                    raise
        raise AssertionError("unreachable")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._each(lambda node: node.kill(), list(self.nodes.values()))

    def _start(self, folder: Path) -> None:
        ports = _ports()
        one = new_id()
        self.nodes = {n: Node(one, folder / f"node-{n}", ports[n]["PLAINTEXT"], settings(n, ports)) for n in NODES}
        self.proxies = {n: Proxy(ports[n]["proxy"], ports[n]["PROXIED"], self.traps) for n in NODES}
        for proxy in self.proxies.values():
            self._stack.enter_context(proxy)
        self.whole()

    def whole(self) -> None:
        """Undoes all faults: heals networks, starts nodes, and waits until every replica is in sync."""
        self.traps.clear()
        for proxy in self.proxies.values():
            proxy.latency(0.0)
            proxy.heal()
        self._each(lambda node: node.start(READY_WITHIN), [n for n in self.nodes.values() if not n.running])
        self.wait_in_sync()

    @staticmethod
    def _each(do: Callable[[Node], object], nodes: Sequence[Node]) -> None:
        with ThreadPoolExecutor(len(NODES)) as pool:
            list(pool.map(do, nodes))

    # --- what a test asks ---

    def wait_in_sync(self, timeout: float = READY_WITHIN) -> None:
        """Waits until all three nodes are in service and every replica is in sync."""
        wait_for(lambda: not self._behind(), timeout, "every replica to be in sync")

    def _behind(self) -> list[str]:
        try:
            found = self._metadata()
        except KafkaException as error:
            return [str(error)]
        if len(found.brokers) < len(NODES):
            return [f"brokers {sorted(found.brokers)}"]
        return [
            f"{topic.topic}-{p.id}: {p.isrs} of {p.replicas}"
            for topic in found.topics.values()
            for p in topic.partitions.values()
            if p.leader < 0 or set(p.isrs) != set(p.replicas)
        ]

    def replicas(self, prefix: str = "") -> dict[str, int]:
        """The least number of replicas of each topic's partitions."""
        return {
            name: min(len(p.replicas) for p in topic.partitions.values())
            for name, topic in self._metadata().topics.items()
            if name.startswith(prefix)
        }

    def leader(self, topic: str, partition: int) -> int:
        """The node that leads a partition now; -1 if none does."""
        return int(self._metadata().topics[topic].partitions[partition].leader)

    def coordinator_of_group(self, group: str) -> int:
        """The node that leads the group's partition of __consumer_offsets, by Kafka's rule (GroupMetadataManager)."""
        return self._coordinator("__consumer_offsets", group)

    def coordinator_of_transactions(self, transactional_id: str) -> int:
        """The node that leads the id's partition of __transaction_state, by Kafka's rule (TransactionStateManager)."""
        return self._coordinator("__transaction_state", transactional_id)

    def _coordinator(self, topic: str, key: str) -> int:
        partitions = self._metadata().topics[topic].partitions
        return self.leader(topic, _java_hash(key) % len(partitions))

    def _metadata(self) -> Any:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 2}).list_topics(timeout=5)

    def lost_markers(self) -> list[str]:
        """The log lines of all brokers that report lost transaction markers (docs/decisions/0008)."""
        return [line for node in self.nodes.values() for line in node.lost_markers()]


def _ports() -> dict[int, dict[str, int]]:
    """Distinct ports for every listener and proxy."""
    names = ("PLAINTEXT", "PROXIED", "CONTROLLER", "proxy")
    taken: set[int] = set()
    while len(taken) < len(NODES) * len(names):
        taken.add(free_port())
    drawn = iter(taken)
    return {n: {name: next(drawn) for name in names} for n in NODES}


def _java_hash(text: str) -> int:
    """Kafka's Utils.abs(text.hashCode()), for ASCII."""
    value = 0
    for char in text.encode("ascii"):
        value = (31 * value + char) & 0xFFFFFFFF
    return value & 0x7FFFFFFF
