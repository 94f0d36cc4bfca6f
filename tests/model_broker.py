"""A model of Kafka's part in a transaction: coordinators, partition logs with sequences and markers, a group's offsets.

The rules are those of Kafka's TransactionCoordinator, ProducerStateManager and GroupMetadataManager, without replicas
and disks. Time passes by calls: the markers of a transaction are written after some more requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.record.memory_records import MemoryRecords

from failsoft.workers.kafka import protocol
from failsoft.workers.kafka.request_errors import Code

SEQUENCES = 2**31
NODES = (1, 2)
EMPTY, ONGOING, ENDING, ENDED = "empty", "ongoing", "ending", "ended"


@dataclass
class Written:
    """A batch or a marker in a log; a marker has no labels."""

    producer: int
    labels: list[bytes]
    commit: bool | None = None


@dataclass
class Log:
    """A partition. ``remembers`` is how many batches of a producer it knows a copy of; Kafka's number is 5."""

    leader: int = 1
    remembers: int = 5
    written: list[Written] = field(default_factory=list)
    states: dict[int, tuple[int, int]] = field(default_factory=dict)
    recent: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def append(self, batch: Any) -> int:
        """Append a batch; returns the error code."""
        producer, epoch, first = batch.producer_id, batch.producer_epoch, batch.base_sequence
        labels = [record.value for record in batch]
        last = (first + len(labels) - 1) % SEQUENCES
        known_epoch, known_last = self.states.get(producer, (-1, -1))
        if epoch < known_epoch:
            return Code.INVALID_PRODUCER_EPOCH
        if epoch == known_epoch:
            if (first, last) in self.recent.get(producer, []):
                return Code.NONE
            if last <= known_last and known_last - last < SEQUENCES // 2:
                return Code.DUPLICATE_SEQUENCE_NUMBER
            if first != (known_last + 1) % SEQUENCES:
                return Code.OUT_OF_ORDER_SEQUENCE_NUMBER
        elif first and known_epoch >= 0:
            return Code.OUT_OF_ORDER_SEQUENCE_NUMBER
        else:
            self.recent[producer] = []
        self.states[producer] = (epoch, last)
        self.recent[producer] = ([*self.recent.get(producer, []), (first, last)])[-self.remembers or 99 :]
        if not self.remembers:
            self.recent[producer] = []
        self.written.append(Written(producer, labels, None if batch.is_transactional else True))
        return Code.NONE

    def mark(self, producer: int, epoch: int, commit: bool) -> None:
        """Write the marker that ends a producer's transaction."""
        if epoch > self.states.get(producer, (-1, -1))[0]:
            self.states[producer], self.recent[producer] = (epoch, -1), []
        self.written.append(Written(producer, [], commit))

    def visible(self) -> list[bytes]:
        """What a read_committed reader sees once all transactions have ended."""
        seen: list[bytes] = []
        for at, batch in enumerate(self.written):
            ends = (w.commit for w in self.written[at:] if w.producer == batch.producer and w.commit is not None)
            if next(ends, False):
                seen += batch.labels
        return seen


@dataclass
class Transaction:
    """The coordinator's state of one transactional id."""

    producer: int
    epoch: int = -1
    last_epoch: int = -1
    state: str = EMPTY
    partitions: set[TopicPartition] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    commit: bool = False
    markers_after: int = 0


@dataclass
class Group:
    """A consumer group with one member at a time. ``history`` has each offset of its one partition, as committed."""

    generation: int = 1
    member: str = "m1"
    offsets: dict[TopicPartition, tuple[int, str]] = field(default_factory=dict)
    pending: dict[int, dict[TopicPartition, tuple[int, str]]] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)
    history: list[int] = field(default_factory=list)

    def refuses(self, generation: int, member: str) -> int:
        if (generation, member) == (-1, ""):
            return Code.NONE
        if member != self.member:
            return Code.UNKNOWN_MEMBER_ID
        return Code.NONE if generation == self.generation else Code.ILLEGAL_GENERATION

    def take(self, offsets: dict[TopicPartition, tuple[int, str]]) -> None:
        self.offsets |= offsets
        self.history += [offset for offset, _ in offsets.values()]


class ModelBroker:
    """A cluster of two nodes. ``handle`` answers one request that reaches a node.

    Args:
        partitions: the output partitions.
        v2: the cluster has transactions v2.
        verifies: leaders ask the coordinator whether a partition is in the transaction (Kafka 3.6 and later).
        remembers: how many batches of a producer a log knows a copy of.
        markers_after: requests until the markers of an ended transaction are written.
    """

    def __init__(
        self,
        partitions: list[TopicPartition],
        *,
        v2: bool = False,
        verifies: bool = True,
        remembers: int = 5,
        markers_after: int = 1,
    ) -> None:
        self.logs = {partition: Log(remembers=remembers) for partition in partitions}
        self.transactions: dict[str, Transaction] = {}
        self.groups: dict[str, Group] = {}
        self.coordinators = {"group": 1, "transaction": 1}
        self.v2, self.verifies, self.markers_after = v2, verifies or v2, markers_after
        self.loading = 0
        self.refuse_produce = 0
        self.producers = 0
        self.handled: list[str] = []

    # --- what happens by itself ---------------------------------------------------------------------------------------

    def group(self, name: str) -> Group:
        return self.groups.setdefault(name, Group())

    def rebalance(self, name: str) -> None:
        """The group gives its partitions to another member, in a new generation."""
        group = self.group(name)
        group.generation += 1
        group.member = f"m{group.generation}"

    def expire(self) -> None:
        """Every open transaction has taken too long: the coordinator aborts it, and ends the producer's epoch."""
        for transaction in self.transactions.values():
            if transaction.state == ONGOING:
                transaction.epoch, transaction.last_epoch = transaction.epoch + 1, -1
                self._end(transaction, commit=False)

    def settle(self) -> None:
        """Let all time pass."""
        self.expire()
        for transaction in self.transactions.values():
            self._write_markers(transaction)

    def _end(self, transaction: Transaction, commit: bool) -> None:
        transaction.state, transaction.commit = ENDING, commit
        transaction.markers_after = self.markers_after

    def _write_markers(self, transaction: Transaction) -> None:
        if transaction.state != ENDING:
            return
        for partition in transaction.partitions:
            self.logs[partition].mark(transaction.producer, transaction.epoch, transaction.commit)
        for name in transaction.groups:
            group = self.group(name)
            offsets = group.pending.pop(transaction.producer, {})
            group.epochs[transaction.producer] = transaction.epoch
            if transaction.commit and offsets:
                group.take(offsets)
        transaction.state, transaction.partitions, transaction.groups = ENDED, set(), set()

    # --- requests -----------------------------------------------------------------------------------------------------

    def handle(self, node: int, request: Any) -> Any:
        """The response of ``node`` to a request struct, through the bytes of both."""
        request = type(request).decode(request.encode())
        name = type(request).__name__
        self.handled.append(name)
        for transaction in self.transactions.values():
            transaction.markers_after -= 1
            if transaction.markers_after < 0:
                self._write_markers(transaction)
        handler = getattr(self, "_" + name.partition("Request")[0])
        response = handler(node, request)
        return type(response).decode(response.encode())

    def _absent(self, kind: str, node: int) -> int:
        if self.coordinators[kind] != node:
            return Code.NOT_COORDINATOR
        if self.loading:
            self.loading -= 1
            return Code.COORDINATOR_LOAD_IN_PROGRESS
        return Code.NONE

    def _ApiVersions(self, node: int, request: Any) -> Any:
        level = 2 if self.v2 else 1
        features = protocol._FEATURES.encode([(protocol.TRANSACTION_VERSION, level, level, {})])
        return _WithFeatures(0, [], 0, {protocol.FINALIZED_FEATURES: features})

    def _InitProducerId(self, node: int, request: Any) -> Any:
        def respond(code: int, producer: int = -1, epoch: int = -1) -> Any:
            return request.RESPONSE_TYPE(0, code, producer, epoch, {})

        if request.transactional_id is None:
            self.producers += 1
            return respond(0, self.producers, 0)
        if code := self._absent("transaction", node):
            return respond(code)
        if request.transactional_id not in self.transactions:
            self.producers += 1
            self.transactions[request.transactional_id] = Transaction(self.producers)
        t = self.transactions[request.transactional_id]
        if request.producer_id not in (-1, t.producer):
            return respond(Code.INVALID_PRODUCER_EPOCH)
        if t.state == ENDING:
            return respond(Code.CONCURRENT_TRANSACTIONS)
        if t.state == ONGOING:  # without a look at the epoch, as Kafka does it
            t.epoch, t.last_epoch = t.epoch + 1, -1
            self._end(t, commit=False)
            return respond(Code.CONCURRENT_TRANSACTIONS)
        if request.producer_id == -1:
            t.epoch, t.last_epoch = t.epoch + 1, -1
        elif request.producer_epoch == t.epoch:
            t.epoch, t.last_epoch = t.epoch + 1, t.epoch
        elif request.producer_epoch != t.last_epoch:
            return respond(Code.INVALID_PRODUCER_EPOCH)
        return respond(0, t.producer, t.epoch)

    def _add(self, request: Any, partitions: set[TopicPartition], groups: set[str]) -> int:
        t = self.transactions.get(request.transactional_id)
        if t is None or t.producer != request.producer_id:
            return Code.INVALID_PRODUCER_ID_MAPPING
        if t.epoch != request.producer_epoch:
            return Code.INVALID_PRODUCER_EPOCH
        if t.state == ENDING:
            return Code.CONCURRENT_TRANSACTIONS
        t.state = ONGOING
        t.partitions |= partitions
        t.groups |= groups
        return Code.NONE

    def _AddPartitionsToTxn(self, node: int, request: Any) -> Any:
        wanted = {TopicPartition(topic, p) for topic, numbers in request.topics for p in numbers}
        code = self._absent("transaction", node) or self._add(request, wanted, set())
        return request.RESPONSE_TYPE(0, [(topic, [(p, code) for p in numbers]) for topic, numbers in request.topics])

    def _AddOffsetsToTxn(self, node: int, request: Any) -> Any:
        code = self._absent("transaction", node) or self._add(request, set(), {request.group_id})
        return request.RESPONSE_TYPE(0, code)

    def _in_transaction(self, request: Any, adds: bool, partition: TopicPartition | None, group: str | None) -> int:
        """May a batch or offset be written? A newer request adds itself to the transaction."""
        partitions, groups = {partition} - {None}, {group} - {None}
        if adds:
            return self._add(request, partitions, groups)  # type: ignore[arg-type]
        t = self.transactions.get(request.transactional_id)
        if not self.verifies:
            return Code.NONE
        if t is None or t.epoch != request.producer_epoch:
            return Code.INVALID_PRODUCER_EPOCH
        inside = t.state == ONGOING and partitions <= t.partitions and groups <= t.groups  # type: ignore[operator]
        return Code.NONE if inside else Code.INVALID_TXN_STATE

    def _Produce(self, node: int, request: Any) -> Any:
        flexible = request.API_VERSION >= 9
        end: list[Any] = [{}] if flexible else []
        topics = []
        for topic, partitions, *_ in request.topics:
            rows = []
            for number, data, *_ in partitions:
                code = self._produce(node, request, TopicPartition(topic, number), data)
                rows.append((number, code, -1, -1, 0, [], None, *end))
            topics.append((topic, rows, *end))
        return request.RESPONSE_TYPE(topics, 0, *end)

    def _produce(self, node: int, request: Any, partition: TopicPartition, data: bytes) -> int:
        log = self.logs[partition]
        if log.leader != node:
            return Code.NOT_LEADER_OR_FOLLOWER
        if self.refuse_produce:
            self.refuse_produce -= 1
            return Code.MESSAGE_TOO_LARGE
        batch = MemoryRecords(bytes(data)).next_batch()
        assert batch is not None and batch.validate_crc()
        if request.transactional_id is not None:
            request.producer_id, request.producer_epoch = batch.producer_id, batch.producer_epoch
            if code := self._in_transaction(request, request.API_VERSION >= 12, partition, None):
                return code
        return log.append(batch)

    def _TxnOffsetCommit(self, node: int, request: Any) -> Any:
        group = self.group(request.group)
        offsets = _offsets(request)
        code = self._absent("group", node) or group.refuses(request.generation, request.member_id)
        code = code or self._in_transaction(request, request.API_VERSION >= 5, None, request.group)
        if not code:
            producer, epoch = request.producer_id, request.producer_epoch
            if epoch < group.epochs.get(producer, -1):
                code = Code.INVALID_PRODUCER_EPOCH
            else:
                group.epochs[producer] = epoch
                group.pending[producer] = group.pending.get(producer, {}) | offsets
        return _partition_codes(request, code)

    def _OffsetCommit(self, node: int, request: Any) -> Any:
        group = self.group(request.group)
        code = self._absent("group", node) or group.refuses(request.generation, request.member_id)
        if not code:
            group.take(_offsets(request))
        return _partition_codes(request, code)

    def _OffsetFetch(self, node: int, request: Any) -> Any:
        if code := self._absent("group", node):
            return request.RESPONSE_TYPE(0, [], code, {})
        group = self.group(request.group)
        unstable = request.require_stable and {tp for offsets in group.pending.values() for tp in offsets}
        topics = []
        for topic, numbers, _ in request.topics:
            rows: list[Any] = []
            for number in numbers:
                offset, text = group.offsets.get(TopicPartition(topic, number), (-1, ""))
                if unstable and TopicPartition(topic, number) in unstable:
                    rows.append((number, -1, -1, "", Code.UNSTABLE_OFFSET_COMMIT, {}))
                else:
                    rows.append((number, offset, -1, text, 0, {}))
            topics.append((topic, rows, {}))
        return request.RESPONSE_TYPE(0, topics, 0, {})

    def _EndTxn(self, node: int, request: Any) -> Any:
        v5 = request.API_VERSION >= 5
        code = self._absent("transaction", node) or self._end_code(request, v5)
        t = self.transactions.get(request.transactional_id)
        if not v5:
            return request.RESPONSE_TYPE(0, code)
        return request.RESPONSE_TYPE(0, code, *((-1, -1) if code or t is None else (t.producer, t.epoch)), {})

    def _end_code(self, request: Any, v5: bool) -> int:
        t = self.transactions.get(request.transactional_id)
        if t is None or t.producer != request.producer_id:
            return Code.INVALID_PRODUCER_ID_MAPPING
        # With v5 the epoch ends with the transaction, so a copy of the request names the epoch before.
        copy = v5 and t.state in (ENDING, ENDED) and request.producer_epoch == t.epoch - 1 and t.commit
        if request.producer_epoch != t.epoch and not copy:
            return Code.PRODUCER_FENCED if v5 else Code.INVALID_PRODUCER_EPOCH
        if t.state == ONGOING:
            t.epoch += 1 if v5 else 0
            self._end(t, commit=True)
            return Code.NONE
        if t.commit and (copy or not v5) and t.state in (ENDING, ENDED):
            return Code.CONCURRENT_TRANSACTIONS if t.state == ENDING else Code.NONE
        return Code.INVALID_TXN_STATE


class _WithFeatures(protocol.ApiVersionsResponse_v3):
    """Encodes tagged fields, which aiokafka does without their size."""

    def encode(self) -> bytes:
        ((tag, value),) = self.tags.items()
        plain = protocol.ApiVersionsResponse_v3(self.error_code, self.api_versions, self.throttle_time_ms, {})
        return bytes(plain.encode())[:-1] + bytes([1, tag, len(value)]) + value


def _offsets(request: Any) -> dict[TopicPartition, tuple[int, str]]:
    return {TopicPartition(t, p): (offset, text) for t, rows, _ in request.topics for p, offset, _, text, _ in rows}


def _partition_codes(request: Any, code: int) -> Any:
    topics = [(topic, [(row[0], code, {}) for row in rows], {}) for topic, rows, _ in request.topics]
    return request.RESPONSE_TYPE(0, topics, {})
