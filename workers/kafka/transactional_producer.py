"""The producer of a worker: writes the outputs and the offsets of many lanes in one transaction.

The group fences it (KIP-447): the offsets name the generation in which the member got its partitions, and the group's
coordinator refuses those of an older one. Without a transactional id it writes at least once, by the same path: first
all outputs, then the offsets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from failsoft.workers.kafka import codecs, requests
from failsoft.workers.kafka.member import GroupMember
from failsoft.workers.kafka.protocol import transaction_version
from failsoft.workers.kafka.request_errors import Remedy, remedy
from failsoft.workers.kafka.request_loop import CoordinatorKind, RequestLoop, Sleep, together
from failsoft.workers.kafka.requests import Offset, error_codes
from failsoft.workers.kafka.sealed_batches import (
    Outputs,
    Queues,
    Sequences,
    acknowledge,
    next_requests,
    partitions_of,
    seal,
)

GROUP, TRANSACTION = CoordinatorKind.GROUP, CoordinatorKind.TRANSACTION
LEADERS = "leaders"
"""The connections to the leaders; those to coordinators are their own (``RequestLoop``)."""


class ProducerBroken(KafkaError):  # type: ignore[misc]
    """An earlier call failed, or the producer was stopped. Nothing more is written: a new producer must take over."""


class TransactionalProducer:
    """Commits one transaction after another; each has all of its outputs and offsets, or nothing.

    A commit has no bound in time: the caller sets one, and cancels. After an error or a cancellation in ``commit`` the
    producer is broken, because a batch may be missing in the log, and no later transaction may follow it. Whether a
    failed commit took effect is then unknown, as for any database. The next producer with this transactional id
    aborts what is open.

    Args:
        client: a bootstrapped client of its own, which ``stop`` closes.
        transactional_id: of one process at a time; a later one fences an earlier one. None writes at least once.
        timeout_ms: milliseconds after which the broker aborts a transaction by itself, when it next looks (every 10 s
            by default). Readers and the next owners of the partitions wait for at most both when the process dies.
        replicas_timeout_ms: milliseconds for which a leader waits for its replicas. Below the client's timeout, or a
            leader's refusal comes too late.
        codec: Kafka's number of the codec of what it writes.
        transactions_v2: use transactions v2 (KIP-890) where the cluster has them: each transaction has an epoch of its
            own, so a late copy of a request can do no harm. The partitions are added by requests of their own all the
            same: where brokers were left to add them, one that found the coordinator busy waited for 20 ms.
        sleep: waits for some seconds before a retry.
    """

    def __init__(
        self,
        client: AIOKafkaClient,
        transactional_id: str | None,
        timeout_ms: int,
        *,
        replicas_timeout_ms: int = 2_000,
        codec: int = codecs.NONE,
        transactions_v2: bool = True,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._client = client
        self._id = transactional_id
        self._timeout_ms, self._replicas_timeout_ms = timeout_ms, replicas_timeout_ms
        self._may_use_v2, self._codec = transactions_v2, codec
        self._requests = RequestLoop(client, sleep)
        self._producer = requests.NO_PRODUCER
        self._sequences = Sequences()
        self._v2 = False
        self._stragglers = 0
        self._failure: BaseException | None = None
        self._stopped = False
        self._committing = asyncio.Lock()

    @property
    def producer(self) -> tuple[int, int]:
        """The producer id and epoch; (-1, -1) before the start."""
        return self._producer

    @property
    def transactions_v2(self) -> bool:
        """Whether the transactions are those of KIP-890. Known after the start."""
        return self._v2

    @property
    def trouble(self) -> str:
        """Why the last retry was needed; "" if there was none. For the message of a caller whose time is up."""
        return self._requests.trouble

    async def start(self) -> None:
        """Get a producer id. Fences earlier producers of the transactional id, and aborts what they left open.

        May be called again after an error. Raises RequestRefused, for example without the permission.
        """
        if self._id is not None and self._may_use_v2:
            versions = await self._requests.ask(requests.api_versions(), TRANSACTION, self._id)
            self._v2 = transaction_version(versions) >= 2
        await self._take_epoch(requests.NO_PRODUCER)

    async def load(self, topics: Collection[str]) -> None:
        """Learn the leaders of all output topics, so that the first commit need not. Returns when all are known.

        Raises RequestRefused for a topic that the client may not see.
        """
        for topic in topics:
            self._client.add_topic(topic)
        await self._requests.know(topics)

    async def commit(self, outputs: Outputs, offsets: Mapping[TopicPartition, Offset], member: GroupMember) -> None:
        """Write a transaction. When this returns, it is committed.

        Args:
            outputs: partitions, each with closed batches (``produce_batches.pack``); a partition may appear
                more than once. The batches of a partition are written in order. They are used up: each has its bytes.
            offsets: the offset to continue from and its metadata, for each partition that was read. Not empty.
            member: who commits the offsets.

        Raises:
            ValueError: without offsets. The producer stays usable.
            ProducerBroken: if an earlier commit failed, or after ``stop``.
            ClientFenced: if another producer or member has taken over.
            RequestRefused: if a broker refused any part for another reason.
        """
        if not offsets:
            raise ValueError("a transaction without offsets: its outputs would be written again after a restart")
        self._check_usable()
        if self._committing.locked():
            raise RuntimeError("a commit began while another one is under way")
        async with self._committing:
            try:
                await self._commit(outputs, offsets, member)
            except BaseException as error:
                self._failure = error
                raise

    async def stop(self) -> None:
        """Wait for the commit that is under way, refuse later ones, and close the connections."""
        self._stopped = True
        async with self._committing:
            await self._client.close()

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise ProducerBroken(f"an earlier commit failed: {self._failure!r}") from self._failure
        if self._stopped or self._producer == requests.NO_PRODUCER:
            raise ProducerBroken("the producer is stopped" if self._stopped else "the producer is not started")

    async def _commit(self, outputs: Outputs, offsets: Mapping[TopicPartition, Offset], member: GroupMember) -> None:
        if self._id is None:
            await self._write(seal(outputs, self._producer, self._sequences, False, self._codec))
            await self._requests.ask(requests.offset_commit(member, offsets), GROUP, member.group)
            return
        # 1. Late copies of earlier requests must not reach this transaction.
        if self._stragglers != self._requests.lost and not self._v2:
            await self._take_epoch(self._producer)
        # 2. Tell the coordinator what the transaction will have, in two requests at once. A leader that checked a batch
        #    while these are under way would be told to come again later.
        partitions = partitions_of(outputs)
        adds = [requests.add_partitions(self._id, self._producer, partitions)] if partitions else []
        adds.append(requests.add_offsets(self._id, self._producer, member.group))
        await together(*(self._requests.ask(add, TRANSACTION, self._id) for add in adds))
        # 3. The outputs and, beside them, the offsets. A broker that checks both at once tells one to come again; 2 ms
        #    later it does. One after the other took about as long.
        queues = seal(outputs, self._producer, self._sequences, True, self._codec)
        commit_offsets = requests.txn_offset_commit(self._id, self._producer, member, offsets, adds=self._v2)
        await together(self._write(queues), self._requests.ask(commit_offsets, GROUP, member.group))
        # 4. Only now, when every broker has acknowledged its part, the end.
        ended = await self._requests.ask(
            requests.end_transaction(self._id, self._producer, bumps=self._v2), TRANSACTION, self._id
        )
        if self._v2:
            self._producer = (ended.producer_id, ended.producer_epoch)
            self._sequences.clear()

    async def _take_epoch(self, replaces: tuple[int, int]) -> None:
        """Get a new epoch, after which brokers refuse every request of an older one.

        Before transactions v2, an epoch lasts for many transactions. A request whose answer was lost may still be on
        its way: a late EndTxn would commit half of the next transaction, a late TxnOffsetCommit would replace its
        offsets. Naming the epoch that is replaced keeps a fenced producer from fencing its successor.
        """
        kind = TRANSACTION if self._id is not None else None
        request = requests.init_producer_id(self._id, self._timeout_ms, replaces)
        response = await self._requests.ask(request, kind, self._id or "")
        self._producer = (response.producer_id, response.producer_epoch)
        self._sequences.clear()
        self._stragglers = self._requests.lost  # a late copy of this very request can only fence this producer

    async def _write(self, queues: Queues) -> None:
        """Send the batches, one a partition at a time, until all are in the logs."""
        tried, trouble = 0, self._requests.trouble_log()
        while queues:
            parts, leaderless = next_requests(queues, self._client.cluster.leader_for_partition)
            for partition in leaderless[:1]:
                self._requests.trouble = f"no leader of {partition.topic}-{partition.partition}"
            answers = await together(*(self._send(node, batches, queues) for node, batches in parts))
            after = max([*answers, Remedy.METADATA if leaderless else Remedy.DONE], key=lambda a: a.value)
            if after is Remedy.DONE:
                tried, trouble = 0, self._requests.trouble_log()
                continue
            tried += 1
            await self._requests.pause(after, tried, trouble)

    async def _send(self, node: int, batches: Mapping[TopicPartition, bytes], queues: Queues) -> Remedy:
        """Send one request. Removes the batches that are in the logs; a retry sends the same bytes."""
        request = requests.produce(self._id, self._replicas_timeout_ms, batches, adds=self._v2)
        response = await self._requests.send(node, request, LEADERS)
        if response is None:
            return Remedy.METADATA
        after = self._requests.judge(request, response)
        codes = ((p, remedy(request.name, code)) for code, p, _ in error_codes(response) if p in batches)
        acknowledge(queues, [partition for partition, verdict in codes if partition and verdict is Remedy.DONE])
        return after
