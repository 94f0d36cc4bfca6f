"""A cluster of three brokers with the interface of one: each kill or restart applies to the next broker in turn."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

from tests.cluster import NODES, READY_WITHIN, Cluster, Node


class Three:
    """A ``tests.kafka.Broker`` of three nodes. A killed or restarted node is in sync before the next is touched."""

    kind = "three embedded brokers"

    def __init__(self, folder: Path) -> None:
        self._cluster = Cluster(folder)
        self._turn = cycle(NODES)
        self._killed: Node | None = None

    @property
    def bootstrap(self) -> str:
        return self._cluster.bootstrap

    def start(self) -> Three:
        """Starts all three, or the node that was killed."""
        if self._killed is None:
            self._cluster.__enter__()
        else:
            self._killed.start(READY_WITHIN)
            self._killed = None
            self._cluster.wait_in_sync()
        return self

    def kill(self) -> None:
        self._killed = self._cluster.nodes[next(self._turn)]
        self._killed.kill()

    def restart(self) -> Three:
        """Restarts the next node by a controlled shutdown, as operators do."""
        self._cluster.nodes[next(self._turn)].restart()
        self._cluster.wait_in_sync()
        return self

    def stop(self) -> None:
        self._cluster.__exit__(None, None, None)

    def lost_markers(self) -> list[str]:
        return self._cluster.lost_markers()
