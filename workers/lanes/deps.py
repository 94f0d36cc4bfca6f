"""What all lanes of a worker share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from failsoft.models.answers.last_known import LastKnown
from failsoft.schemas.event import NO_READERS, Readers
from failsoft.schemas.record import Record
from failsoft.topics.names import Names
from failsoft.workers.client_timeouts import ClientTimeouts
from failsoft.workers.lanes.exclusive import ExclusiveLock
from failsoft.workers.lanes.records_in_flight import RecordsInFlight
from failsoft.workers.lanes.redriven import Letters
from failsoft.workers.scoring.plan import Call, CallResult, Plan
from failsoft.workers.serving.registry import ServingRegistry
from failsoft.workers.telemetry.report import Reporter


class Calls(Protocol):
    """The part of failsoft.workers.execution.shared_calls.SharedCalls that lanes use; it is documented there."""

    def run(self, call: Call, lane: int) -> Awaitable[CallResult]: ...


class Schemas(Protocol):
    """The schemas of events, as lanes use them: failsoft.workers.schema_registry."""

    @property
    def registry_open(self) -> bool:
        """Whether the registry's breaker is open or half-open, so that not every look-up is made."""

    async def readers(self, records: Sequence[Record]) -> Readers:
        """A reader of each schema that ``records`` name, or why there is none. Takes at most the registry's deadline,
        and no time where all are known."""


class NoSchemas:
    """The Schemas of a pipeline whose events need none."""

    registry_open = False

    async def readers(self, _: Sequence[Record]) -> Readers:
        return NO_READERS


@dataclass(frozen=True, slots=True)
class Deps:
    """What all lanes of a worker share.

    Attributes:
        names: the pipeline's topic, group and transaction names.
        plan: the pipeline's models, fallback chain and ladder.
        registry: the versions that serve here, and their breakers.
        calls: runs the calls to models; rows of several lanes may share a run.
        reporter: writes metrics and failure logs of each committed batch.
        make_known: restores the answers for ``last_known`` of a lane; None if the chain has no such link.
        make_letters: makes a lane's search for dead letters that other tools send back.
        on_result: called with each call and its result.
        exactly_once: outputs are written in transactions.
        wall: the broker's clock, at the earliest that it can be (epoch seconds): what is due by it is due.
        latest: the same clock, at the latest (epoch seconds): due times and the times of records are reckoned from it.
        clock: the monotonic clock (seconds).
        draws: gives n uniform random draws in [0, 1).
        exclusive: the lock with which a lane runs a batch alone in the process.
        in_flight: bounds the records that all lanes score at once.
        timeouts: those of the Kafka clients, and what depends on them.
        schemas: gives the readers of the schemas that records name.
        answer_schema: the registry's id of the schema of answers; None: they are JSON.
    """

    names: Names
    plan: Plan
    registry: ServingRegistry
    calls: Calls
    reporter: Reporter
    make_known: Callable[[int], Coroutine[Any, Any, LastKnown | None]]
    make_letters: Callable[[], Letters]
    on_result: Callable[[Call, CallResult], None]
    exactly_once: bool
    wall: Callable[[], float]
    latest: Callable[[], float]
    clock: Callable[[], float]
    draws: Callable[[int], np.ndarray[Any, np.dtype[np.float64]]]
    exclusive: ExclusiveLock = field(default_factory=ExclusiveLock)
    in_flight: RecordsInFlight = field(default_factory=RecordsInFlight)
    timeouts: ClientTimeouts = field(default_factory=ClientTimeouts)
    schemas: Schemas = field(default_factory=NoSchemas)
    answer_schema: int | None = None
