"""The private names of aiokafka and Faust that failsoft uses: each exists, works as expected, and is used only in the
border files.

If an upgrade changes one of them, a test fails with its name, rather than a worker.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiokafka
import faust
import pytest
from aiokafka.codec import snappy_encode
from aiokafka.consumer import fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment as Assignment
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.record import default_records
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c, decode_varint_py
from faust.app import BootStrategy
from faust.transport.base import Transport
from faust.transport.consumer import ThreadDelegateConsumer
from faust.transport.drivers import aiokafka as driver

from failsoft.workers.kafka import fetch_records, offset_fetch
from tests.client_insides import CLIENT
from tests.connection_insides import CONNECTIONS
from tests.fetching_insides import FETCHING
from tests.group_insides import GROUP
from tests.private_uses import DOCUMENTED, Use, defined, is_used, uses

ROOT = Path(__file__).resolve().parents[2]
TP = aiokafka.TopicPartition("t", 0)


@pytest.fixture(autouse=True)
def as_aiokafka_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiokafka's own names, also where another test of this process has installed ours."""
    monkeypatch.setattr(fetcher, "MemoryRecords", MemoryRecords)
    monkeypatch.setattr(fetcher, "PartitionRecords", fetch_records.PartitionRecords.__base__)
    monkeypatch.setattr(GroupCoordinator, "_send_req", offset_fetch._send)


def test_documented_modules_are_there() -> None:
    """Each documented module exists; a removed module must leave the list."""
    assert all(importlib.import_module(name) for name in DOCUMENTED)


# --- the list ---------------------------------------------------------------------------------------------------------


def _takes(function: Any, *names: str) -> bool:
    """Whether ``function`` has exactly these parameters."""
    return list(inspect.signature(function).parameters) == list(names)


def _reads(function: Any, name: str) -> bool:
    """Whether ``function`` reads ``name`` when it runs, as a global or as an attribute."""
    return name in inspect.unwrap(function).__code__.co_names


def _batch(count: int = 0) -> Any:
    batch = BatchBuilder(10_000, 0, is_transactional=0)
    for _ in range(count):
        batch.append(timestamp=1, key=b"k", value=b"v")
    return batch


def _raw() -> bytes:
    return bytes(_batch(2)._build())


def _bare(kind: Any, **fields: Any) -> Any:
    """An object of ``kind`` without its ``__init__``."""
    found = kind.__new__(kind)
    vars(found).update(fields)
    return found


def _decompresses() -> bool:
    batch = default_records._DefaultRecordBatchPy(_raw())
    batch._maybe_uncompress()
    return isinstance(batch._buffer, bytearray) and len(list(batch)) == 2


def _dies() -> bool:
    """coordinator_dead forgets the coordinator, and wakes the task that looks for the new one."""
    dead: list[bool] = []
    coordinator = _bare(GroupCoordinator, coordinator_id=3, group_id="g", _coordinator_dead_fut=None)
    coordinator._coordinator_dead_fut = SimpleNamespace(done=lambda: False, set_result=lambda _: dead.append(True))
    coordinator.coordinator_dead()
    return coordinator.coordinator_id is None and dead == [True]


def _consumer_keeps(name: str, kind: Any) -> bool:
    """Whether a started consumer with a group has a ``kind`` in its attribute ``name``."""
    start = inspect.getsource(aiokafka.AIOKafkaConsumer.start)
    return f"self.{name} = {kind.__name__}(" in start and hasattr(aiokafka.AIOKafkaConsumer, name) is False


Holds = Callable[[], object]
INSIDES: dict[str, Holds] = {
    # Sending: clients.py, produce_batches.py.
    "aiokafka.producer.message_accumulator:BatchBuilder": lambda: _takes(
        BatchBuilder, "batch_size", "compression_type", "is_transactional", "key_serializer", "value_serializer"
    ),
    "aiokafka.producer.message_accumulator:BatchBuilder._builder.append": lambda: (
        _batch()._builder.append(0, 5, b"k", b"v", [("h", b"x")]) is not None
        and BatchBuilder(1, 0)._builder.append(1, 5, b"k", b"v", []) is None
    ),
    "aiokafka.producer.message_accumulator:BatchBuilder._builder.size": lambda: (
        _batch(2)._builder.size() == len(_batch(2)._build())
    ),
    "aiokafka.producer.message_accumulator:BatchBuilder._relative_offset": lambda: (
        _batch(2)._relative_offset == 2 == _batch(2).record_count()
    ),
    **CLIENT,
    **CONNECTIONS,
    # Fetching: fetch_records.py.
    "aiokafka.consumer.fetcher:MemoryRecords": lambda: (
        fetcher.MemoryRecords is MemoryRecords and _reads(fetcher.Fetcher._proc_fetch_request, "MemoryRecords")
    ),
    "aiokafka.consumer.fetcher:PartitionRecords": lambda: (
        list(inspect.signature(fetcher.PartitionRecords).parameters)[:4]
        == ["tp", "records", "aborted_transactions", "fetch_offset"]
        and _reads(fetcher.Fetcher._proc_fetch_request, "PartitionRecords")
    ),
    "aiokafka.consumer.fetcher:PartitionRecords._unpack_records": lambda: _reads(
        fetcher.PartitionRecords.__init__, "_unpack_records"
    ),
    "aiokafka.consumer.fetcher:PartitionRecords._contains_abort_marker": lambda: _reads(
        fetcher.PartitionRecords._unpack_records, "_contains_abort_marker"
    ),
    "aiokafka.consumer.fetcher:PartitionRecords._records": lambda: _reads(
        fetcher.PartitionRecords._unpack_records, "_records"
    ),
    "aiokafka.consumer.fetcher:PartitionRecords._tp": lambda: _reads(fetcher.PartitionRecords._unpack_records, "_tp"),
    "aiokafka.record.default_records:DefaultRecordBatch": lambda: (
        len(list(default_records.DefaultRecordBatch(memoryview(_raw())))) == 2
    ),
    "aiokafka.codec:snappy_encode": lambda: snappy_encode(b"x" * 99)[:8] == b"\x82SNAPPY\x00",
    "aiokafka.protocol.admin:DescribeConfigsRequest": lambda: _takes(
        DescribeConfigsRequest, "resources", "include_synonyms"
    ),
    "aiokafka.record.util:calc_crc32c": lambda: calc_crc32c(memoryview(b"123456789")) == 0xE3069283,
    "aiokafka.record.util:decode_varint_py": lambda: decode_varint_py(bytearray(b"\xac\x02"), 0) == (150, 2),
    "aiokafka.record.default_records:_DefaultRecordBatchPy._read_msg": lambda: _takes(
        default_records._DefaultRecordBatchPy._read_msg, "self", "decode_varint"
    ),
    "aiokafka.record.default_records:_DefaultRecordBatchPy": lambda: _takes(
        default_records._DefaultRecordBatchPy, "buffer"
    ),
    "aiokafka.record.default_records:_DefaultRecordBatchPy._maybe_uncompress": lambda: _reads(
        default_records._DefaultRecordBatchPy.__iter__, "_maybe_uncompress"
    ),
    "aiokafka.record.default_records:_DefaultRecordBatchPy._buffer": _decompresses,
    **FETCHING,
    # The group: offset_fetch.py, membership.py.
    "aiokafka.consumer.group_coordinator:GroupCoordinator": lambda: _consumer_keeps("_coordinator", GroupCoordinator),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._send_req": lambda: (
        _takes(GroupCoordinator._send_req, "self", "request")
        and inspect.iscoroutinefunction(GroupCoordinator._send_req)
        and _reads(GroupCoordinator._do_fetch_commit_offsets, "_send_req")
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator.coordinator_dead": _dies,
    "aiokafka.consumer.group_coordinator:GroupCoordinator.group_id": lambda: _reads(
        GroupCoordinator._do_fetch_commit_offsets, "group_id"
    ),
    **GROUP,
    "aiokafka.protocol.commit:OffsetFetchRequest": lambda: (
        _takes(OffsetFetchRequest, "consumer_group", "partitions")
        and _reads(GroupCoordinator._do_fetch_commit_offsets, "OffsetFetchRequest")
    ),
    "aiokafka.coordinator.protocol:ConsumerProtocolMemberAssignment": lambda: (
        Assignment.decode(Assignment(0, [("t", [0, 2])], b"").encode()).assignment == [("t", [0, 2])]
    ),
    # The control plane: faust_app.py.
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread": lambda: _reads(
        driver.Consumer._new_consumer_thread, "AIOKafkaConsumerThread"
    ),
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._create_worker_consumer": lambda: (
        _takes(driver.AIOKafkaConsumerThread._create_worker_consumer, "self", "transport")
        and _reads(driver.AIOKafkaConsumerThread._create_consumer, "_create_worker_consumer")
    ),
    "aiokafka.consumer:AIOKafkaConsumer._fetch_max_wait_ms": lambda: _reads(
        aiokafka.AIOKafkaConsumer.start, "_fetch_max_wait_ms"
    ),
    "faust.transport.drivers.aiokafka:Consumer": lambda: driver.Transport.Consumer is driver.Consumer,
    "faust.transport.drivers.aiokafka:Consumer._new_consumer_thread": lambda: (
        _takes(driver.Consumer._new_consumer_thread, "self")
        and _reads(ThreadDelegateConsumer.__init__, "_new_consumer_thread")
    ),
    "faust.transport.drivers.aiokafka:Transport": lambda: (
        _takes(Transport.__init__, "self", "url", "app", "loop") and _reads(Transport.create_consumer, "Consumer")
    ),
    "faust:App._new_transport": lambda: (
        _takes(faust.App._new_transport, "self") and _reads(faust.App.transport.fget, "_new_transport")
    ),
    "faust:GlobalTable._changelog_topic_name": lambda: (
        _takes(faust.GlobalTable._changelog_topic_name, "self")
        and _reads(faust.GlobalTable._new_changelog_topic, "_changelog_topic_name")
    ),
    "faust.app:BootStrategy.enable_web": lambda: _reads(BootStrategy._should_enable_web, "enable_web"),
}


@pytest.mark.parametrize("name", INSIDES)
def test_an_inside_means_what_we_rely_on(name: str) -> None:
    """A private name exists, takes the arguments that we pass, and is still used by aiokafka or Faust as we expect."""
    assert INSIDES[name]()


# --- where they are used ----------------------------------------------------------------------------------------------

BORDERS = {"aiokafka": "workers/kafka/", "faust": "workers/fleet/faust_app.py", "mode": "workers/fleet/faust_app.py"}
ELSEWHERE = {
    # topics must not import workers, and aiokafka's admin client returns a member's assignment as bytes.
    ("topics/admin.py", "aiokafka.coordinator.protocol:ConsumerProtocolMemberAssignment"),
    # topics/admin.py connects for every command, and topics must not import workers.
    ("topics/connection/diagnosis.py", "aiokafka.conn:collect_hosts"),
    ("topics/connection/diagnosis.py", "aiokafka.conn:create_conn"),
    ("topics/connection/diagnosis.py", "aiokafka.protocol.admin:SaslHandShakeRequest"),
    ("topics/connection/diagnosis.py", "aiokafka.protocol.metadata:MetadataRequest"),
    ("topics/connection/oauth.py", "aiokafka.conn:OAuthAuthenticator"),
    # Faust creates this consumer, and gives it only to a private method.
    ("workers/fleet/faust_app.py", "_fetch_max_wait_ms"),
}


def _sources() -> dict[str, str]:
    files = (p for folder in ("schemas", "topics", "models", "workers") for p in (ROOT / folder).rglob("*.py"))
    return {str(p.relative_to(ROOT)): p.read_text("utf-8") for p in sorted(files)}


SOURCES = _sources()
OURS = set().union(*(defined(ast.parse(source)) for source in SOURCES.values()))
USES = [use for file, source in SOURCES.items() for use in uses(file, source, OURS)]


def test_only_the_borders_use_insides() -> None:
    """Only workers/kafka uses private names of aiokafka, and only faust_app.py those of Faust."""
    assert {(u.file, u.name) for u in USES if not _is_at_its_border(u)} == ELSEWHERE


def _is_at_its_border(use: Use) -> bool:
    """Is a name used in a border file of its package? A bare name belongs to the packages for which INSIDES has it."""
    owners = [use.name] if re.search("[.:]", use.name) else [name for name in INSIDES if use.name in _parts(name)]
    packages = {re.split("[.:]", owner)[0] for owner in owners}
    return any(use.file.startswith(BORDERS[package]) for package in packages)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("workers/kafka/clients.py", "def f(app): return app._new_transport()"),
        ("workers/kafka/clients.py", "import faust\nclass A(faust.App):\n def _new_transport(self): ..."),
        ("workers/kafka/clients.py", "from faust.transport.base import Transport"),
        ("workers/kafka/clients.py", "import mode.services"),
        ("workers/fleet/faust_app.py", "def f(consumer): return consumer._coordinator"),
        ("workers/fleet/faust_app.py", "from aiokafka.record.memory_records import MemoryRecords"),
        ("workers/fleet/sync.py", "def f(producer): return producer._sender"),
    ],
)
def test_a_use_at_the_other_border_is_found(file: str, source: str) -> None:
    """A private name of Faust does not belong in workers/kafka, nor one of aiokafka into faust_app.py."""
    found = list(uses(file, source, set()))
    assert found and not any(_is_at_its_border(use) for use in found)


def test_an_inside_that_is_used_is_listed() -> None:
    """Each private name in use is in INSIDES; otherwise an upgrade could change it unnoticed."""
    parts = {part for name in INSIDES for part in _parts(name)}
    assert not [u for u in USES if u.name not in (INSIDES if ":" in u.name else parts)]


@pytest.mark.parametrize("name", INSIDES)
def test_an_inside_that_is_listed_is_used(name: str) -> None:
    """Each name in INSIDES is still used by a border file."""
    borders = (*BORDERS.values(), *(file for file, _ in ELSEWHERE))
    assert any(is_used(name, source) for file, source in SOURCES.items() if file.startswith(borders))


@pytest.mark.parametrize(
    ("name", "source", "used"),
    [
        ("aiokafka.p:BatchBuilder._builder.append", "batch._builder.append(1)", True),
        ("aiokafka.p:BatchBuilder._builder.append", "batches.append(batch)", False),
        ("aiokafka.c:GroupCoordinator.group_id", "coordinator.group_id", True),
        ("aiokafka.c:GroupCoordinator.group_id", "def f(group_id): return g(group_id=group_id)", False),
        ("aiokafka.f:FetchResult.getall", "class A(fetcher.FetchResult):\n def getall(self): ...", True),
        ("aiokafka.f:FetchResult.getall", "class A:\n def getall(self): ...", False),
        ("faust.app:BootStrategy.enable_web", "class A(BootStrategy):\n enable_web = False", True),
        ("faust.app:BootStrategy.enable_web", "enable_web = False", False),
        ("aiokafka.client:AIOKafkaClient", "from aiokafka.client import AIOKafkaClient", True),
        ("aiokafka.client:AIOKafkaClient", "class AIOKafkaClient: ...", False),
    ],
)
def test_a_name_of_the_same_spelling_is_no_use(name: str, source: str, used: bool) -> None:
    """A listed name is used by its whole path, as an import, or as an override; a variable so named is no use."""
    assert is_used(name, source) is used


def _parts(name: str) -> list[str]:
    return name.partition(":")[2].split(".")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("async def f(consumer): return consumer._fetcher", {"_fetcher"}),
        ("def f(consumer): return getattr(consumer, '_fetcher')", {"_fetcher"}),
        ("def f(a): a.consumer._closed = True", {"_closed"}),
        ("import aiokafka.util", {"aiokafka.util"}),
        ("from aiokafka.client import AIOKafkaClient", {"aiokafka.client:AIOKafkaClient"}),
        (
            "from aiokafka.producer import sender\nsender.BACKOFF_OVERRIDE = 1",
            {"aiokafka.producer.sender:BACKOFF_OVERRIDE"},
        ),
        ("from aiokafka import AIOKafkaConsumer\nAIOKafkaConsumer.getmany = len", {"getmany"}),
        ("from mode import Service\nclass A(Service):\n def __init__(self): self._tasks = {}", {"_tasks"}),
        ("import faust\nclass A(faust.App):\n def _new_transport(self): ...", {"_new_transport"}),
        ("import faust\nclass A(faust.App):\n def f(self): return self._transport", {"_transport"}),
        ("from aiokafka import AIOKafkaConsumer\nAIOKafkaConsumer().getmany()", set()),
        ("class A:\n def __init__(self): self._own = 1\ndef f(a): return a._own", set()),
        ("class A:\n def __init__(self): self._fetcher = 1\ndef f(a): return a._fetcher", {"_fetcher"}),
        ("class A:\n def __init__(self): self._fetcher = 1\n def f(self): return self._fetcher", set()),
        ("import os\nos._exit(1)", set()),
        ("from mode import Service\nclass A(Service):\n def __init__(self): self._my_lanes = {}", set()),
    ],
)
def test_the_search_sees_what_it_should(source: str, found: set[str]) -> None:
    """The search finds reads, writes, overrides and imports, and skips our own and documented names."""
    assert {use.name for use in uses("a.py", source, defined(ast.parse(source)))} == found
