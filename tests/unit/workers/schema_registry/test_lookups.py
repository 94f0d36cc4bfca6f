"""Look-ups of schemas: once a worker, by the breaker's rules, and in the background while the registry is down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.event import NO_READERS
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.fleet.breaker import BreakerRow, Lease, ReportKind
from failsoft.schemas.formats.reader import SchemaReader
from failsoft.schemas.formats.registered import Registered, SchemaRef, SchemaType, Unusable
from failsoft.schemas.model_version import SCHEMA_REGISTRY
from failsoft.workers.schema_registry import lookups
from failsoft.workers.schema_registry.client import RegistryClient
from failsoft.workers.schema_registry.lookups import MAX_PENDING, SchemaReaders
from failsoft.workers.schema_registry.memory import SchemaMemory
from failsoft.workers.schema_sections import SchemaRegistry
from failsoft.workers.serving.dependency import DependencyBreaker, dependencies
from failsoft.workers.serving.registry import ServingRegistry
from failsoft.workers.telemetry.metrics import Metrics
from tests.kit import Rec
from tests.registry_server import ANOTHER, Failing, RegistryServer

DEADLINE = 0.3


@dataclass(frozen=True, slots=True)
class _Made:
    """Stands for a reader: it says of which schema it was made."""

    text: str


@dataclass
class _Desk:
    """The look-ups of a worker with a real registry, a real breaker and a compiler that only notes what it got."""

    url: str
    clock: Callable[[], float] = time.monotonic
    memory: SchemaMemory = field(default_factory=SchemaMemory)
    compiled: list[SchemaRef] = field(default_factory=list)
    unusable: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.collector = CollectorRegistry()
        metrics = Metrics(self.collector)
        self.serving = ServingRegistry("w", metrics, self.clock, time.time, lambda: 0.5)
        section = SchemaRegistry(url=self.url, deadline="300ms", open_for="1s", max_open="2s")
        policy = dependencies(section)[SCHEMA_REGISTRY]
        self.readers = SchemaReaders(
            lambda records: {int(each.value or b"") for each in records},
            RegistryClient(section, Path()),
            self.memory,
            DependencyBreaker(self.serving, SCHEMA_REGISTRY, policy),
            self.compile,
            metrics,
            DEADLINE,
            self.clock,
        )

    async def compile(self, registered: Registered) -> SchemaReader:
        self.compiled.append(registered.ref)
        if registered.text in self.unusable:
            raise Unusable("it is recursive")
        return _Made(registered.text)  # type: ignore[return-value]

    async def get(self, *ids: int) -> Mapping[SchemaRef, object]:
        return await self.readers.readers([Rec("events", 0, i, value=b"%d" % id_) for i, id_ in enumerate(ids)])

    async def failure(self, id_: int) -> Failure:
        found = (await self.get(id_))[id_]
        assert isinstance(found, Failure)
        return found

    async def knows(self, id_: int) -> None:
        """Wait until the schema is known, whoever asked for it."""
        async with asyncio.timeout(20):
            while self.memory.get(id_) is None:
                await asyncio.sleep(0.02)

    def count(self, result: str) -> float:
        return self.collector.get_sample_value("failsoft_schema_lookups_total", {"result": result}) or 0.0


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        yield server


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask in the background every 20 ms."""
    monkeypatch.setattr(lookups, "ASK_EVERY", 0.02)


@asynccontextmanager
async def desk(registry: RegistryServer, clock: Callable[[], float] = time.monotonic) -> AsyncIterator[_Desk]:
    found = _Desk(registry.url, clock)
    try:
        yield found
    finally:
        await found.readers.close()


async def test_a_schema_is_asked_for_once_and_compiled_once_over_all_lanes(registry: RegistryServer) -> None:
    """Also when lanes ask at the same time; then it is kept for the topic, and the registry may die."""
    a, b = registry.register("s", "AVRO", '"int"'), registry.register("s", "AVRO", '"long"')
    async with desk(registry) as d:
        both = await asyncio.gather(d.get(a, b, a), d.get(b), d.get(a))
        assert both[0] == {a: _Made('"int"'), b: _Made('"long"')} and both[1][b] is both[0][b]
        registry.stop()
        assert (await d.get(a))[a] is both[0][a]
        assert await d.get() is NO_READERS
        assert sorted(map(int, d.compiled)) == [a, b] and registry.asked == 2 and d.count("found") == 2
        assert set(d.memory.unwritten) == {a, b}


async def test_a_schema_of_the_memory_needs_no_registry() -> None:
    """A worker that starts while the registry is dead answers events of every schema that was ever met."""
    async with desk(RegistryServer(port=1)) as d:
        d.memory.absorb(Registered(7, SchemaType.AVRO, '"int"'))
        assert await d.get(7) == {7: _Made('"int"')}


async def test_a_dead_registry_is_a_dependency_and_its_breaker_opens(registry: RegistryServer) -> None:
    """After three failures it is not asked, but for probes; the failures say which schema, and why."""
    registry.failing = Failing.ERROR_500
    async with desk(registry) as d:
        for _ in range(3):
            failure = await d.failure(7)
            assert failure.kind is Kind.DEPENDENCY and "schema id 7: http://" in failure.message
        assert d.readers.registry_open
        failure = await d.failure(8)
        assert failure.kind is Kind.DEPENDENCY and failure.message.startswith("schema id 8: it is unknown, and the reg")
        assert "; before: schema id 7: http://" in failure.message and "status 500" in failure.message
        assert registry.asked == 3 and d.count("unavailable") == 3 and d.count("breaker_open") == 1


async def test_a_registry_that_hangs_costs_a_batch_one_deadline(registry: RegistryServer) -> None:
    """However many schemas the batch names; neighbours of known schemas have their readers."""
    known = registry.register("s", "AVRO", '"int"')
    async with desk(registry) as d:
        await d.get(known)
        registry.failing = Failing.HANG
        begun = time.monotonic()
        found = await d.get(known, *range(100, 150))
        assert time.monotonic() - begun < 6 * DEADLINE, "one after the other they take seven"
        assert found[known] == _Made('"int"')
        others = [each for ref, each in found.items() if ref != known]
        assert len(others) == 50 and all(isinstance(f, Failure) and f.kind is Kind.DEPENDENCY for f in others)


@pytest.mark.usefixtures("quick")
async def test_no_lane_waits_for_a_probe_of_a_registry_that_hangs(registry: RegistryServer) -> None:
    """While the breaker is open or half-open, the events of known schemas in the same batch have no reason to wait."""
    known = registry.register("s", "AVRO", '"int"')
    async with desk(registry) as d:
        await d.get(known)
        registry.failing = Failing.HANG
        await d.get(7, 8, 9)
        async with asyncio.timeout(20):
            while registry.asked < 5:  # one that is known, three that opened the breaker, and a probe that hangs
                await asyncio.sleep(0.01)
        begun = time.monotonic()
        found = await d.get(known, 7, 8, 10)
        assert time.monotonic() - begun < DEADLINE / 3 and found[known] == _Made('"int"')
        failures = [each for each in found.values() if isinstance(each, Failure)]
        assert [each.kind for each in failures] == [Kind.DEPENDENCY] * 3 and d.readers.registry_open


async def test_many_schemas_of_the_memory_are_compiled_at_once(registry: RegistryServer) -> None:
    """As when a worker starts on a topic of many writers: the limit is for look-ups, and these need none."""
    registry.stop()
    async with desk(registry) as d:
        ids = range(2 * MAX_PENDING)
        for id_ in ids:
            d.memory.absorb(Registered(id_, SchemaType.AVRO, '"int"'))
        assert await d.get(*ids) == dict.fromkeys(ids, _Made('"int"'))


@pytest.mark.usefixtures("quick")
async def test_what_the_registry_owes_is_asked_for_until_it_is_back(registry: RegistryServer) -> None:
    """Nobody has to come for it: a rung of an hour would miss every probe. The breaker closes by that."""
    id_ = registry.register("s", "AVRO", '"int"')
    registry.stop()
    async with desk(registry) as d:
        assert (await d.failure(id_)).kind is Kind.DEPENDENCY
        async with asyncio.timeout(20):
            while not d.readers.registry_open:
                await asyncio.sleep(0.01)
        registry.start()
        await d.knows(id_)
        assert (await d.get(id_))[id_] == _Made('"int"') and not d.readers.registry_open


@pytest.mark.usefixtures("quick")
async def test_the_fleet_grants_the_probe_in_the_background(registry: RegistryServer) -> None:
    """With the fleet's row open, this worker asks the owner for a probe, and its look-up is reported as its result."""
    id_ = registry.register("s", "AVRO", '"int"')
    async with desk(registry) as d:
        now = int(time.time() * 1000)
        d.serving.absorb(BreakerRow(str(SCHEMA_REGISTRY), "open", 1, now - 9_000, now - 1))
        assert (await d.failure(id_)).kind is Kind.DEPENDENCY
        async with asyncio.timeout(20):
            while not (kinds := [report.kind for report in d.serving.reports()]):
                await asyncio.sleep(0.01)
        assert kinds == [ReportKind.ASK] and registry.asked == 0
        row = BreakerRow(str(SCHEMA_REGISTRY), "half_open", 2, now, lease=_lease(now))
        d.serving.absorb(row)
        await d.knows(id_)
        (report,) = d.serving.reports()
        assert report.kind is ReportKind.PROBED and report.probes.passed == 1


def _lease(now: int) -> Lease:
    return Lease("w", 1, now, now + 60_000)


async def test_a_missing_schema_is_malformed_for_a_minute(registry: RegistryServer) -> None:
    """Then it is asked for again. The registry answered, so its breaker stays closed. Another worker's find counts."""
    now = 0.0
    async with desk(registry, lambda: now) as d:
        for _ in range(5):
            failure = await d.failure(7)
            assert failure.kind is Kind.MALFORMED and "schema id 7: " in failure.message
        assert registry.asked == 1 and d.count("missing") == 1 and not d.readers.registry_open
        now = 61.0
        assert (await d.failure(7)).kind is Kind.MALFORMED and registry.asked == 2
        d.memory.absorb(Registered(7, SchemaType.AVRO, '"int"'))
        assert await d.get(7) == {7: _Made('"int"')}


async def test_an_unusable_schema_is_malformed_and_not_kept(registry: RegistryServer) -> None:
    """What cannot be compiled may be a registry's rubbish; after a minute it is asked again."""
    id_ = registry.register("s", "AVRO", '"bad"')
    now = 0.0
    async with desk(registry, lambda: now) as d:
        d.unusable = {'"bad"'}
        for _ in range(3):
            assert await d.failure(id_) == Failure(Kind.MALFORMED, f"schema id {id_} cannot be used: it is recursive")
        assert d.compiled == [id_] and d.memory.get(id_) is None
        registry.put(id_, "AVRO", '"good"')
        now = 61.0
        assert await d.get(id_) == {id_: _Made('"good"')}


@pytest.mark.usefixtures("quick")
async def test_another_schema_for_an_id_is_told_and_the_first_stays(registry: RegistryServer) -> None:
    """As when a registry was set up anew and gives its ids again."""
    id_ = registry.register("s", "AVRO", '"int"')
    async with desk(registry) as d:
        d.memory.absorb(Registered(id_, SchemaType.AVRO, ' "int"'))
        with capture_logs() as lines:
            assert await d.get(id_) == {id_: _Made(' "int"')}
            await d.readers._asking  # type: ignore[misc]
        assert registry.asked == 1 and d.count("another") == 0 and not lines
    registry.failing = Failing.ANOTHER
    async with desk(registry) as d:
        d.memory.absorb(Registered(id_, SchemaType.AVRO, '"int"'))
        with capture_logs() as lines:
            assert await d.get(id_) == {id_: _Made('"int"')}
            await d.readers._asking  # type: ignore[misc]
        assert registry.asked == 2 and d.count("another") == 1
        assert [(each["log_level"], each["schema"]) for each in lines] == [("error", f"schema id {id_}")]
        assert await d.get(id_) == {id_: _Made('"int"')} and ANOTHER not in str(d.memory.get(id_))


@pytest.mark.usefixtures("quick")
async def test_one_schema_that_cannot_be_compared_does_not_keep_others_from_it(
    registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is compared in its turn."""
    answer = RegistryServer.answer

    def partly(self: RegistryServer, method: str, path: str, body: bytes, authorization: str | None) -> object:
        return (500, {}) if path == "/schemas/ids/1" else answer(self, method, path, body, authorization)

    monkeypatch.setattr(RegistryServer, "answer", partly)
    registry.put(2, "AVRO", '"another"')
    async with desk(registry) as d:
        for id_ in (1, 2):
            d.memory.absorb(Registered(id_, SchemaType.AVRO, '"int"'))
        await d.get(1, 2)
        async with asyncio.timeout(20):
            while not d.count("another"):
                await asyncio.sleep(0.01)
        assert d.count("unavailable") >= 1


async def test_a_worker_that_asks_while_another_one_has_asked_uses_the_first_schema(registry: RegistryServer) -> None:
    """The topic of schemas may tell it between this worker's question and its answer."""
    id_ = registry.register("s", "AVRO", '"late"')
    async with desk(registry) as d:
        compile = d.compile

        async def slow(registered: Registered) -> SchemaReader:
            d.memory.absorb(Registered(id_, SchemaType.AVRO, '"first"'))
            return await compile(registered)

        d.readers._compile = slow
        assert await d.get(id_) == {id_: _Made('"first"')}
        assert d.count("another") == 1


async def test_a_schema_that_an_operator_deleted_is_asked_for_again(registry: RegistryServer) -> None:
    """A tombstone in the topic of schemas is how a wrong one is replaced, without a restart."""
    id_ = registry.register("s", "AVRO", '"int"')
    async with desk(registry) as d:
        d.memory.absorb(Registered(id_, SchemaType.AVRO, '"wrong"'))
        assert await d.get(id_) == {id_: _Made('"wrong"')}
        d.memory.forget(id_)
        assert await d.get(id_) == {id_: _Made('"int"')}


async def test_ids_that_nobody_registered_do_not_flood_the_registry(registry: RegistryServer) -> None:
    """An id costs its writer nothing. What is over the limit waits; the batch ends, and memory is bounded."""
    async with desk(registry) as d:
        found = await d.get(*range(1_000, 4_000))
        kinds = [f.kind for f in found.values() if isinstance(f, Failure)]
        assert len(kinds) == 3_000 and set(kinds) == {Kind.MALFORMED, Kind.DEPENDENCY}
        assert registry.asked <= MAX_PENDING


async def test_an_error_that_is_no_schemas_fault_is_raised(registry: RegistryServer) -> None:
    """A mistake in code ends the lane, and must not make events wait or die."""
    id_ = registry.register("s", "AVRO", '"int"')
    async with desk(registry) as d:

        async def broken(registered: Registered) -> SchemaReader:
            raise KeyError("a mistake")

        d.readers._compile = broken
        with pytest.raises(KeyError, match="a mistake"):
            await d.get(id_)


async def test_closing_ends_what_is_under_way(registry: RegistryServer) -> None:
    """A hanging look-up does not hold up the worker's end, and its admission is given back."""
    registry.failing = Failing.HANG
    async with desk(registry) as d:
        waiting = asyncio.create_task(d.get(7))
        async with asyncio.timeout(10):
            while not registry.asked:
                await asyncio.sleep(0.01)
        await d.readers.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert d.serving.breakers[str(SCHEMA_REGISTRY)].state is BreakerState.CLOSED
        assert d.count("unavailable") == 0
