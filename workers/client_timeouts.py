"""The timeouts of a worker's Kafka clients, those that depend on them, and the checks of each against the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from failsoft.schemas.config.duration import text

LONGEST = 86_400.0
"""Seconds: Kafka's protocol has milliseconds in 32 bits, and no broker allows a session of a day."""

SHORTEST_REQUEST = 0.5
"""Seconds: a broker may hold a fetch for 100 ms, and an answer over a slow line takes as long."""

TRIES = 3
"""How often a request must fit into its transaction: when answers get lost in silence, it is sent again."""

JOIN_MARGIN = 5.0
"""Seconds. A join is answered when all members have joined, at the latest after the rebalance timeout. A member that
gave up earlier would join anew, and hold up the others again. As Kafka's own client, this one waits for longer."""


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """All in seconds. docs/decisions/0017-one-transaction.md has the reasons for the defaults.

    Attributes:
        session: the group removes a member that is silent for this long.
        heartbeat: between two heartbeats.
        rebalance: how long a rebalance waits for a member to give up its partitions.
        request: for the answer to a request of the producer.
        transaction: the broker aborts a transaction of this age when it next looks, every 10 s by default
            (transaction.abort.timed.out.transaction.cleanup.interval.ms). So the open transaction of a dead worker
            delays the next owner of its partitions by at most 18 s, and not at all when the dead worker's id starts
            again.
    """

    session: float = 6.0
    heartbeat: float = 1.0
    rebalance: float = 30.0
    request: float = 2.5
    transaction: float = 8.0

    @property
    def replicas(self) -> float:
        """For which a leader waits for its replicas. It says so before the producer gives its answer up."""
        return 0.8 * self.request

    @property
    def fetch(self) -> float:
        """For the answer to a fetch, or to a request for offsets. A client opens one connection at a time, so a broker
        that is away also holds up the others for this time. The heartbeats have a client of their own.
        """
        return 2 * self.request

    @property
    def group(self) -> float:
        """For the answer to a heartbeat, or for a connection. A member that has lost its coordinator has to find the
        new one within its session, and the one that it asks, or connects to, may be away as well.
        """
        return min(0.8 * self.request, 0.4 * (self.session - self.heartbeat))

    @property
    def join(self) -> float:
        """For the answer to a join."""
        return self.rebalance + JOIN_MARGIN

    @property
    def commit(self) -> float:
        """The longest time of one commit. Much longer than its transaction is useless. Without a bound a commit can
        hang for ever when a coordinator leaves (aiokafka #1145).
        """
        return 1.5 * self.transaction

    @property
    def drain(self) -> float:
        """For which a drain or a revocation waits for the lanes: for the transaction that is committing, then for the
        one or two with their last batches. Each ends within ``commit`` itself.
        """
        return 2 * self.commit + 2.0

    @property
    def stuck_after(self) -> float:
        """Without progress, while there is work to do, after which a lane or the event loop counts as stuck. Longer
        than a commit may take, and for the defaults shorter than callers wait for an answer.
        """
        return max(30.0, self.drain + 4.0)

    @property
    def end(self) -> float:
        """Within which an asked worker ends: its drain, and then stopping the clients and the threads 5 s each."""
        return self.drain + 19.0

    def problems(self) -> Iterator[str]:
        """What does not fit, each with the keys of pipeline.toml."""
        named = {
            "session_timeout": self.session,
            "heartbeat_interval": self.heartbeat,
            "rebalance_timeout": self.rebalance,
            "request_timeout": self.request,
            "transaction_timeout": self.transaction,
        }
        for key, value in named.items():
            if value > LONGEST:
                yield f"kafka.{key}: {text(value)} is longer than a day"
        if 3 * self.heartbeat > self.session:
            yield (
                f"kafka.heartbeat_interval: {text(self.heartbeat)} is more than a third of kafka.session_timeout "
                f"({text(self.session)}): one heartbeat that is late would end the session"
            )
        if self.session > self.rebalance:
            yield (
                f"kafka.session_timeout: {text(self.session)} is longer than kafka.rebalance_timeout "
                f"({text(self.rebalance)}): a dead member would hold up every rebalance beyond its end"
            )
        if self.request < SHORTEST_REQUEST:
            yield f"kafka.request_timeout: {text(self.request)} is less than {text(SHORTEST_REQUEST)}"
        if TRIES * self.request > self.transaction:
            yield (
                f"kafka.request_timeout: {text(self.request)} does not fit {TRIES} times into "
                f"kafka.transaction_timeout ({text(self.transaction)}): a request whose answer is lost must be sent "
                f"again while the transaction is open"
            )
        if self.drain >= self.rebalance:
            yield (
                f"kafka.rebalance_timeout: {text(self.rebalance)} is too short for kafka.transaction_timeout "
                f"({text(self.transaction)}): a member commits its last batches first, which takes up to "
                f"{text(self.drain)}"
            )
