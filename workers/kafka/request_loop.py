"""Sends a request until it is answered: finds the broker, and sends again as ``request_errors`` says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from enum import IntEnum
from typing import Any, TypeVar

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    BrokerResponseError,
    CorrelationIdError,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    RequestTimedOutError,
)

from failsoft.workers.kafka import request_errors
from failsoft.workers.kafka.request_errors import Code, Remedy
from failsoft.workers.kafka.requests import OneVersion, error_codes
from failsoft.workers.kafka.trouble_log import TroubleLog

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

NOT_SENT = (NodeNotReadyError,)
"""aiokafka's errors of a request that never left."""

LOST = (RequestTimedOutError, KafkaConnectionError, CorrelationIdError)
"""aiokafka's errors of a request whose answer did not come: the broker may have obeyed it, or may yet obey it."""


ANY = "any"
"""The connections for what any broker can answer."""


class CoordinatorKind(IntEnum):
    """Whose coordinator; the numbers are those of FindCoordinator."""

    GROUP = 0
    TRANSACTION = 1

    @property
    def connection(self) -> str:
        """The connections to such coordinators. Not the number, which is one of aiokafka's own connections."""
        return self.name.lower()


class RequestRefused(KafkaError):  # type: ignore[misc]
    """A broker refused a request, and will refuse it again.

    Attributes:
        request: Kafka's name of the request.
        code: the error code.
        partition: the partition that the code is about; None if it is about the request.
    """

    def __init__(self, request: str, code: int, partition: TopicPartition | None = None, message: str = "") -> None:
        super().__init__(_refusal(request, code, partition, message))
        self.request, self.code, self.partition = request, code, partition


class ClientFenced(RequestRefused):
    """A broker refused a request because another client has taken over: a newer producer, or the group's members."""


class AnswerIncomplete(KafkaError):  # type: ignore[misc]
    """A response lacks a partition of its request, so nobody knows what became of it."""


class RequestLoop:
    """Sends requests of one client, and remembers the coordinators.

    A request waits for as long as a retry may help: the caller sets the bound, and cancels. The log says what a request
    waits for (``TroubleLog``). Each kind of broker has a connection of its own, so that on one broker a small request
    does not queue behind a large one.

    Args:
        client: a bootstrapped client, which the caller closes.
        sleep: waits for some seconds.
        clock: the monotonic clock (seconds).

    Attributes:
        trouble: why the last retry was needed; "" if there was none.
        lost: how many requests had no answer and may still reach a broker.
    """

    def __init__(
        self, client: AIOKafkaClient, sleep: Sleep = asyncio.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._sleep, self._clock = sleep, clock
        self._coordinators: dict[tuple[CoordinatorKind, str], int] = {}
        self.trouble = ""
        self.lost = 0

    async def ask(
        self,
        request: OneVersion,
        kind: CoordinatorKind | None = None,
        key: str = "",
        accept: Remedy = Remedy.DONE,
    ) -> Any:
        """Send to the coordinator of ``key``, or to any broker, until the response has no error but that of ``accept``.

        Raises RequestRefused, ClientFenced, AnswerIncomplete, and other errors of aiokafka that no retry can mend.
        """
        tried, trouble = 0, self.trouble_log()
        while True:
            tried += 1
            node = await self._find(kind, key, trouble) if kind is not None else self._client.get_random_node()
            response = await self.send(node, request, kind.connection if kind is not None else ANY)
            after = self.judge(request, response) if response is not None else Remedy.COORDINATOR
            if after in (Remedy.DONE, accept):
                return response
            if after is Remedy.COORDINATOR and kind is not None:
                self._coordinators.pop((kind, key), None)
            await self.pause(after, tried, trouble)

    async def send(self, node: int | None, request: OneVersion, connection: str) -> Any:
        """Send once, on the ``connection`` of that name. Returns the response, or None if there was none."""
        try:
            return await self._client.send(node, request, group=connection)
        except NOT_SENT as error:
            self._note(request, error)
        except LOST as error:
            self.lost += 1
            self._note(request, error)
        return None

    async def know(self, topics: Collection[str]) -> None:
        """Return when the metadata has all ``topics``. Raises RequestRefused for one that may not be seen."""
        tried, trouble = 0, self.trouble_log()
        cluster = self._client.cluster
        while unknown := [topic for topic in topics if not cluster.partitions_for_topic(topic)]:
            tried += 1
            for topic in cluster.unauthorized_topics & set(unknown):
                raise RequestRefused(f"Metadata of {topic}", Code.TOPIC_AUTHORIZATION_FAILED)
            self.trouble = f"no metadata of {', '.join(unknown)}"
            await self.pause(Remedy.METADATA, tried, trouble)

    def judge(self, request: OneVersion, response: Any) -> Remedy:
        """What a response asks of the client. Raises RequestRefused or ClientFenced for a final code."""
        codes = list(error_codes(response))
        after = request_errors.gravest(request.name, (code for code, _, _ in codes))
        for code, partition, message in codes:
            verdict = request_errors.remedy(request.name, code)
            if verdict is Remedy.FINAL:
                kind = ClientFenced if request_errors.fences(code) else RequestRefused
                raise kind(request.name, code, partition, message)
            if verdict is not Remedy.DONE:
                self.trouble = _refusal(request.name, code, partition, message)
        missing = request.partitions - {partition for _, partition, _ in codes if partition}
        if after is Remedy.DONE and missing:
            raise AnswerIncomplete(f"{request.name}: the response does not name {sorted(missing)}")
        return after

    def trouble_log(self) -> TroubleLog:
        """What ``pause`` needs, for one request and its tries."""
        return TroubleLog(self._clock)

    async def pause(self, after: Remedy, tried: int, trouble: TroubleLog) -> None:
        """Wait before the next try; also asks for new metadata where that may help."""
        trouble.note(self.trouble)
        if after in (Remedy.METADATA, Remedy.COORDINATOR):
            # Not awaited: a broker that is away may hold up the answer, and the other brokers can be asked meanwhile.
            self._client.force_metadata_update()
        await self._sleep(request_errors.wait(after, tried))

    async def _find(self, kind: CoordinatorKind, key: str, trouble: TroubleLog) -> int:
        tried = 0
        while (kind, key) not in self._coordinators:
            tried += 1
            try:
                self._coordinators[kind, key] = await self._client.coordinator_lookup(kind, key)
                break
            except (*NOT_SENT, *LOST) as error:
                self.trouble = f"FindCoordinator of {key}: {error!r}"
            except BrokerResponseError as error:
                if request_errors.remedy("FindCoordinator", error.errno) is Remedy.FINAL:
                    raise RequestRefused("FindCoordinator", error.errno) from error
                self.trouble = _refusal("FindCoordinator", error.errno)
            await self.pause(Remedy.COORDINATOR, tried, trouble)
        return self._coordinators[kind, key]

    def _note(self, request: OneVersion, error: KafkaError) -> None:
        self.trouble = f"{request.name} v{request.struct.API_VERSION}: no answer ({error!r})"


def _refusal(request: str, code: int, partition: TopicPartition | None = None, message: str = "") -> str:
    where = f" of {partition.topic}-{partition.partition}" if partition else ""
    by = request_errors.out_of_range(message) if code == Code.INVALID_TIMESTAMP else ""
    details = "; ".join(filter(None, (by, message)))
    return f"{request}{where} refused: {request_errors.describe(code)}" + (details and f" ({details})")


async def together(*calls: Coroutine[Any, Any, T]) -> list[T]:
    """Run all, and return what they return. The first error cancels the others, and is raised when they have ended."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    return [task.result() for task in tasks]
