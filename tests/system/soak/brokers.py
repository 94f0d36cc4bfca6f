"""Three brokers that the soak treats as one: what is done to it is done to the next of them, one at a time."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

from tests.cluster import NODES, READY_WITHIN, Cluster, Node


class Three:
    """A ``tests.kafka.Broker``. One that was killed or restarted is in sync again before the next one is touched."""

    kind = "three embedded brokers"

    def __init__(self, folder: Path) -> None:
        self._cluster = Cluster(folder)
        self._turn = cycle(NODES)
        self._killed: Node | None = None

    @property
    def bootstrap(self) -> str:
        return self._cluster.bootstrap

    def start(self) -> Three:
        """All three, or the one that was killed."""
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
        """With a controlled shutdown, as operators do it."""
        self._cluster.nodes[next(self._turn)].restart()
        self._cluster.wait_in_sync()
        return self

    def stop(self) -> None:
        self._cluster.__exit__(None, None, None)

    def lost_markers(self) -> list[str]:
        return self._cluster.lost_markers()
