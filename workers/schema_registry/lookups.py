"""The readers of the schemas that events name: looked up once a worker, compiled once, and remembered.

A registry that is down is asked by the rules of its breaker. What it owes is asked for in the background, so that the
events that wait for it find it known.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from failsoft.schemas.config.duration import seconds
from failsoft.schemas.event import NO_READERS, Readers
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.formats.framing import named
from failsoft.schemas.formats.reader import SchemaReader, WantedFields
from failsoft.schemas.formats.registered import Registered, SchemaRef, SchemaType, Unusable
from failsoft.schemas.model_version import SCHEMA_REGISTRY
from failsoft.schemas.record import Record
from failsoft.schemas.unwrapping import schema_refs
from failsoft.workers.schema_registry.client import CONNECTIONS, RegistryClient, RegistryUnavailable, SchemaNotFound
from failsoft.workers.schema_registry.compiling import compile_reader
from failsoft.workers.schema_registry.memory import SchemaMemory
from failsoft.workers.schema_registry.packages import check_packages
from failsoft.workers.schema_registry.protoc import ProtocFailed
from failsoft.workers.serving.dependency import DependencyBreaker, dependencies
from failsoft.workers.serving.registry import ServingRegistry
from failsoft.workers.settings import Settings
from failsoft.workers.telemetry.logs import FewLines
from failsoft.workers.telemetry.metrics import Metrics

log = structlog.get_logger("failsoft.schemas")

REFUSED_FOR = 60.0
"""Seconds for which a schema counts as missing or unusable before it is tried again."""

ASK_EVERY = 0.5
"""Seconds between two look-ups in the background. The breaker grants few of them while the registry is down."""

MAX_PENDING = 100
"""Look-ups that wait or run at once. An id costs its writer nothing: a batch can name thousands that nobody has."""

MAX_KNOWN = 1_000
"""Readers that are kept, and schemas that are remembered as missing or unusable. The oldest are dropped."""

COMPILED_WITHIN = 10.0
"""Seconds that a batch waits for readers of schemas that are known. One takes a tenth of a second, the largest two; but
nobody knows how many new schemas a batch names."""

SLACK = 0.05
"""Seconds that a batch waits longer than a look-up may take, so that it gets the look-up's own words."""

Compile = Callable[[Registered], Awaitable[SchemaReader]]


@dataclass(frozen=True, slots=True)
class _Known:
    """A schema and its reader."""

    registered: Registered
    reader: SchemaReader


@dataclass(frozen=True, slots=True)
class _Refused:
    """Why events of a schema are malformed, and until when (monotonic seconds); missing: the registry lacks it."""

    failure: Failure
    until: float
    missing: bool


class SchemaReaders:
    """The Schemas of a pipeline with a registry (workers/lanes/deps.py). All lanes of a worker share it.

    A schema is compiled before it is kept in ``memory``, so that rubbish from a registry does not stay. What came from
    the memory is compared once with the registry's, in the background: another schema for an id is logged as an error,
    and the first one stays.

    Args:
        find: the refs that records name.
        client: asks the registry.
        memory: the schemas that are known.
        breaker: the registry's.
        compile: makes a reader; raises Unusable, and ProtocFailed.
        metrics: counts look-ups.
        deadline: seconds of a look-up.
        clock: the monotonic clock (seconds).
    """

    def __init__(
        self,
        find: Callable[[Sequence[Record]], Collection[SchemaRef]],
        client: RegistryClient,
        memory: SchemaMemory,
        breaker: DependencyBreaker,
        compile: Compile,
        metrics: Metrics,
        deadline: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find, self._client, self._memory, self._breaker = find, client, memory, breaker
        self._compile, self._metrics, self._deadline, self._clock = compile, metrics, deadline, clock
        self._known: dict[SchemaRef, _Known] = {}
        self._refused: dict[SchemaRef, _Refused] = {}
        self._pending: dict[SchemaRef, asyncio.Task[SchemaReader | Failure]] = {}
        self._compiling: set[SchemaRef] = set()
        self._slots = asyncio.Semaphore(CONNECTIONS)  # the client's deadline begins when there is a connection
        self._owed: dict[SchemaRef, None] = {}  # what the registry could not be asked for
        self._unchecked: dict[SchemaRef, None] = {}  # from the memory, and not compared with the registry's yet
        self._checked: set[SchemaRef] = set()
        self._asking: asyncio.Task[None] | None = None
        self._last = ""  # why the registry's last answer was none
        self._lines = FewLines(log)

    @classmethod
    def of(
        cls, pipeline: Settings, wanted: WantedFields, memory: SchemaMemory, registry: ServingRegistry, metrics: Metrics
    ) -> SchemaReaders:
        """The readers of a pipeline whose ``schema_registry.url`` is set. Close them after the lanes have ended.

        Connects to nothing yet. Raises Refused for packages that are not installed, and for a certificate file that
        cannot be used.
        """
        section, format = pipeline.schema_registry, pipeline.envelope.format
        check_packages("input.format", format)
        return cls(
            partial(schema_refs, envelope=pipeline.envelope),
            RegistryClient(section, pipeline.folder),
            memory,
            DependencyBreaker(registry, SCHEMA_REGISTRY, dependencies(section)[SCHEMA_REGISTRY]),
            partial(compile_reader, wanted=wanted, format=format),
            metrics,
            seconds(section.deadline),
        )

    @property
    def registry_open(self) -> bool:
        """Is the registry's breaker open or half-open, so that not every look-up is made?"""
        return self._breaker.is_open

    async def readers(self, records: Sequence[Record]) -> Readers:
        """A reader of each schema that ``records`` name, or why there is none.

        DEPENDENCY: the registry could not be asked, or did not answer. MALFORMED: it has no such schema, or the schema
        cannot be used. Takes no time where all are known, or the registry's breaker is open; else at most the deadline,
        and COMPILED_WITHIN.
        """
        wanted = self._find(records)
        if not wanted:
            return NO_READERS
        now, found, tasks = self._clock(), dict[SchemaRef, SchemaReader | Failure](), {}
        for ref in wanted:
            if (known := self._at_hand(ref, now)) is not None:
                found[ref] = known
            elif self._breaker.is_open and self._memory.get(ref) is None:
                found[ref] = self._not_asked(ref)  # probes are made in the background, so that no lane waits for one
            elif (task := self._begin(ref)) is not None:
                tasks[ref] = task
            else:
                found[ref] = _dependency(ref, f"the registry is being asked for {MAX_PENDING} other schemas", False)
        return found if not tasks else found | await self._results(tasks)

    async def close(self) -> None:
        """End look-ups that are under way, and close the connections."""
        tasks = [*self._pending.values(), *([self._asking] if self._asking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()

    # --- a batch --------------------------------------------------------------------------------------------------

    def _at_hand(self, ref: SchemaRef, now: float) -> SchemaReader | Failure | None:
        """What is known of a schema without waiting."""
        known, kept = self._known.get(ref), self._memory.get(ref)
        if known is not None and known.registered is kept:
            return known.reader
        refused = self._refused.get(ref)
        # What was missing may have been found by another worker since.
        if refused is not None and now < refused.until and not (refused.missing and kept is not None):
            return refused.failure
        return None

    def _begin(self, ref: SchemaRef, background: bool = False) -> asyncio.Task[SchemaReader | Failure] | None:
        """The task that gets a reader: one a schema, over all lanes. None if there are too many to ask for."""
        task = self._pending.get(ref)
        if task is None and (len(self._pending) < MAX_PENDING or self._memory.get(ref) is not None):
            task = self._pending[ref] = asyncio.get_running_loop().create_task(self._get(ref, background))
            task.add_done_callback(lambda _: self._pending.pop(ref))
        return task

    async def _results(
        self, tasks: dict[SchemaRef, asyncio.Task[SchemaReader | Failure]]
    ) -> dict[SchemaRef, SchemaReader | Failure]:
        """Wait for look-ups for the deadline, and for readers for COMPILED_WITHIN. What is late goes on."""
        await asyncio.wait(tasks.values(), timeout=self._deadline + SLACK)
        if compiling := [task for ref, task in tasks.items() if ref in self._compiling]:
            await asyncio.wait(compiling, timeout=COMPILED_WITHIN)
        late = "no answer yet, behind other schemas"
        return {ref: task.result() if task.done() else _dependency(ref, late, False) for ref, task in tasks.items()}

    # --- one schema -----------------------------------------------------------------------------------------------

    async def _get(self, ref: SchemaRef, background: bool) -> SchemaReader | Failure:
        registered = self._memory.get(ref)
        if registered is None:
            looked_up = await self._look_up(ref, background)
            if isinstance(looked_up, Failure):
                return looked_up
            registered = looked_up
        elif isinstance(ref, int) and ref not in self._checked:  # a GUID follows from the schema
            self._unchecked[ref] = None
            self._ask_in_background()
        self._owed.pop(ref, None)
        self._compiling.add(ref)
        try:
            return await self._compiled(registered)
        except Unusable as error:
            return self._refuse(ref, f"{named(ref)} cannot be used: {error}", missing=False)
        except ProtocFailed as error:
            return _dependency(ref, str(error))
        finally:
            self._compiling.discard(ref)

    async def _compiled(self, registered: Registered) -> SchemaReader:
        """The reader of a schema, which is kept. If the memory had another one first, the reader of that one."""
        ref = registered.ref
        while True:
            reader = await self._compile(registered)
            self._memory.keep(registered)
            kept = self._memory.get(ref) or registered
            if kept == registered:
                self._known[ref] = _Known(kept, reader)
                _drop_oldest(self._known)
                self._refused.pop(ref, None)
                return reader
            self._tell_another(ref)
            registered = kept

    async def _look_up(self, ref: SchemaRef, background: bool) -> Registered | Failure:
        """Ask the registry, if its breaker allows it. What it refuses in the background is not counted."""
        try:
            found = await self._ask(ref)
        except RegistryUnavailable as error:
            self._owe(ref)
            self._last = f"; before: {error}"
            self._lines.warning("a schema cannot be looked up; its events wait", self._clock(), why=str(error))
            return Failure(Kind.DEPENDENCY, str(error))
        except (SchemaNotFound, Unusable) as error:
            return self._refuse(ref, str(error), missing=isinstance(error, SchemaNotFound))
        if found is None:
            return self._not_asked(ref, background)
        self._last = ""
        self._checked.add(ref)
        return found

    def _not_asked(self, ref: SchemaRef, background: bool = False) -> Failure:
        """The breaker refuses a look-up."""
        if not background:
            self._count("breaker_open")
        self._owe(ref)
        why = f"it is unknown, and the registry is not asked while its breaker is open{self._last}"
        return _dependency(ref, why, False)

    async def _ask(self, ref: SchemaRef) -> Registered | None:
        """One look-up; None if the breaker refuses it. Raises RegistryUnavailable, SchemaNotFound and Unusable."""
        async with self._slots:
            generation = self._breaker.admit()
            if generation is None:
                return None
            result, failed = "found", False
            try:
                return await self._client.schema(ref)
            except RegistryUnavailable:
                result, failed = "unavailable", True
                raise
            except SchemaNotFound:
                result = "missing"
                raise
            except Unusable:
                result = "unusable"
                raise
            except BaseException:
                result = ""
                raise
            finally:
                if result:
                    self._count(result)
                    self._breaker.report(generation, failed)
                else:
                    self._breaker.release(generation)

    def _refuse(self, ref: SchemaRef, why: str, missing: bool) -> Failure:
        """Remember that events of this schema are malformed."""
        self._owed.pop(ref, None)
        failure = Failure(Kind.MALFORMED, why)
        self._refused.pop(ref, None)  # the newest are last
        self._refused[ref] = _Refused(failure, self._clock() + REFUSED_FOR, missing)
        _drop_oldest(self._refused)
        self._lines.warning("a schema cannot be had; its events are malformed", self._clock(), why=why)
        return failure

    # --- in the background ----------------------------------------------------------------------------------------

    def _owe(self, ref: SchemaRef) -> None:
        if len(self._owed) < MAX_PENDING:
            self._owed[ref] = None
            self._ask_in_background()

    def _ask_in_background(self) -> None:
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask_again())

    async def _ask_again(self) -> None:
        """Ask for what is owed, one at a time, until nothing is: lanes come back for it much later, or not at all."""
        try:
            while self._owed or self._unchecked:
                await asyncio.sleep(ASK_EVERY)
                if self._owed:
                    ref = next(iter(self._owed))
                    if (task := self._begin(ref, background=True)) is not None:
                        self._owed.pop(ref)  # the look-up owes it again, behind the others, if it fails
                        await asyncio.wait([task])
                elif self._unchecked:
                    await self._check(next(iter(self._unchecked)))
        finally:
            self._asking = None

    async def _check(self, ref: SchemaRef) -> None:
        """Compare a schema of the memory with the registry's."""
        try:
            found = await self._ask(ref)
        except RegistryUnavailable:
            self._unchecked[ref] = self._unchecked.pop(ref, None)  # its breaker says so; asked again after the others
            return
        except (SchemaNotFound, Unusable) as error:
            self._lines.warning("the registry has lost a schema; the kept one stays", self._clock(), why=str(error))
        else:
            if found is None:
                return
            kept = self._memory.get(ref)
            if kept is not None and kept != found and _content(kept) != _content(found):
                self._tell_another(ref)
        self._unchecked.pop(ref, None)
        self._checked.add(ref)

    def _tell_another(self, ref: SchemaRef) -> None:
        self._count("another")
        log.error(
            "the registry has another schema of an id than before; the first one stays. Was it set up anew?",
            schema=named(ref),
        )

    def _count(self, result: str) -> None:
        self._metrics.add("failsoft_schema_lookups_total", result=result)


def _dependency(ref: SchemaRef, why: str, attempted: bool = True) -> Failure:
    return Failure(Kind.DEPENDENCY, f"{named(ref)}: {why}", attempted)


def _drop_oldest(found: dict[SchemaRef, _Known] | dict[SchemaRef, _Refused]) -> None:
    while len(found) > MAX_KNOWN:
        del found[next(iter(found))]


def _content(schema: Registered) -> object:
    """A schema's content, whatever its white space: a registry may write it differently after an upgrade."""
    texts = [schema.text, *(each.text for each in schema.references)]
    if schema.type is SchemaType.PROTOBUF:
        return schema.type, [text.split() for text in texts]
    try:
        return schema.type, [json.loads(text) for text in texts]
    except (ValueError, RecursionError):
        return schema.type, texts
