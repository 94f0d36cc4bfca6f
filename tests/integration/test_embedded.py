"""The embedded Kafka: it starts, keeps its data, explains a failed start, and ends with its parent process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from failsoft.topics.embedded import broker as embedded
from failsoft.topics.embedded import jars
from failsoft.topics.embedded.broker import Embedded, KafkaFailed, free_port, properties
from failsoft.topics.embedded.jars import JarsUnavailable, kafka_jars
from failsoft.topics.embedded.probe import cluster_at
from tests.kafka import create_topic, eventually, produce, read_all, wait_for

ROOT = Path(__file__).parents[2]

PARENT = """
import json, sys
from pathlib import Path
from failsoft.topics.embedded.broker import Embedded
broker = Embedded(Path(sys.argv[1]) if len(sys.argv) > 1 else None).start()
print(json.dumps([broker.pid, str(broker.data), broker.bootstrap]), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """A broker with a data directory of its own, for the tests that restart it."""
    with Embedded(tmp_path_factory.mktemp("kafka") / "data") as broker:
        yield broker


def _values(broker: Embedded, topic: str, count: int) -> list[bytes | None]:
    return [m.value() for m in read_all(broker.bootstrap, topic, until=lambda r: len(r) >= count)]


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _parent(*arguments: str) -> tuple[subprocess.Popen[str], int, Path, str]:
    """Starts a process that starts a broker and waits. Returns it and the broker's process id, data and address."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    pid, data, bootstrap = json.loads(parent.stdout.readline())
    return parent, pid, Path(data), bootstrap


def _end(parent: subprocess.Popen[str], how: signal.Signals) -> None:
    parent.send_signal(how)
    parent.wait(60)
    for pipe in (parent.stdin, parent.stdout):
        assert pipe is not None
        pipe.close()


def test_a_restart_keeps_topics_records_and_port(kept: Embedded, name: str) -> None:
    """After a clean restart the same address serves the same topics and records."""
    before = kept.bootstrap
    create_topic(kept.bootstrap, name, partitions=2)
    produce(kept.bootstrap, name, [(b"k", b"a", [("h", b"\xff")], 0), (None, None, [], 1)])
    old = kept.pid
    kept.restart()
    assert kept.bootstrap == before and kept.pid != old
    records = read_all(kept.bootstrap, name, until=lambda r: len(r) >= 2)
    assert [(m.key(), m.value(), m.headers(), m.partition()) for m in records] == [
        (b"k", b"a", [("h", b"\xff")], 0),
        (None, None, None, 1),
    ]


@pytest.mark.long
def test_a_crash_loses_nothing_acknowledged(kept: Embedded, name: str) -> None:
    """After SIGKILL and a start, acknowledged records can be read, and new records follow them."""
    create_topic(kept.bootstrap, name)
    produce(kept.bootstrap, name, [(None, b"before", [], None)])
    pid = kept.pid
    kept.kill()
    assert pid is not None and _gone(pid) and not kept.running
    assert cluster_at("127.0.0.1", int(kept.bootstrap.rpartition(":")[2])) is None
    kept.start()
    produce(kept.bootstrap, name, [(None, b"after", [], None)])
    assert _values(kept, name, 2) == [b"before", b"after"]


def test_data_given_outlives_the_object_and_the_port(tmp_path: Path, name: str) -> None:
    """A given data directory keeps its topics for another broker object on other ports, without a new format."""
    with Embedded(tmp_path, free_port()) as first:
        create_topic(first.bootstrap, name)
        produce(first.bootstrap, name, [(None, b"kept", [], None)])
        address = first.bootstrap
    with Embedded(tmp_path, free_port()) as second:
        assert second.bootstrap != address
        assert _values(second, name, 1) == [b"kept"]
        assert "Kafka Server started" in second.log.read_text()


def test_started_means_that_it_serves(kept: Embedded, name: str) -> None:
    """start() returns when Kafka answers with the cluster id of its data; a second start() changes nothing."""
    pid = kept.pid
    assert kept.start().pid == pid
    meta = (kept.data / "logs" / "meta.properties").read_text()
    found = cluster_at("127.0.0.1", int(kept.bootstrap.rpartition(":")[2]))
    assert found is not None and f"cluster.id={found}\n" in meta


def test_a_taken_port_is_refused_by_name(kept: Embedded, tmp_path: Path) -> None:
    """A port in use is named in the error, and no process is left."""
    port = int(kept.bootstrap.rpartition(":")[2])
    refused = Embedded(tmp_path / "data", port)
    with pytest.raises(KafkaFailed, match=f"port {port} is taken"):
        refused.start()
    assert not refused.running and refused.pid is None


def test_a_failed_start_shows_the_end_of_the_log(tmp_path: Path) -> None:
    """The error contains Kafka's own message, and the temporary data is removed."""
    broken = Embedded(settings={"log.retention.check.interval.ms": "soon"})
    with pytest.raises(KafkaFailed, match=r"(?s)Invalid value soon.*log\.retention\.check\.interval\.ms"):
        broken.start()
    assert not broken.running
    with pytest.raises(RuntimeError, match="no data"):
        _ = broken.data


def test_data_in_use_is_refused(kept: Embedded, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second broker on the same data directory does not start; the first and its data are unharmed."""
    monkeypatch.setattr(embedded, "DATA_FREE_WITHIN", 0.0)
    with pytest.raises(KafkaFailed, match="in use by another Kafka"):
        Embedded(kept.data).start()
    create_topic(kept.bootstrap, name)
    produce(kept.bootstrap, name, [(None, b"unharmed", [], None)])
    kept.restart()
    assert _values(kept, name, 1) == [b"unharmed"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_broker_ends_with_its_parent(how: signal.Signals) -> None:
    """However the parent ends, kill -9 included, neither Java nor temporary data is left."""
    parent, pid, data, _ = _parent()
    assert data.is_dir() and not _gone(pid)
    _end(parent, how)
    wait_for(lambda: _gone(pid), 60, f"the broker {pid} to end with its parent")
    wait_for(lambda: not data.exists(), 60, f"{data} to be removed")


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_given_data_outlives_a_killed_parent(tmp_path: Path, name: str) -> None:
    """After kill -9 of the parent, a second broker on the directory waits for the first to end and finds its data."""
    parent, pid, _, bootstrap = _parent(str(tmp_path))
    create_topic(bootstrap, name)
    produce(bootstrap, name, [(None, b"kept", [], None)])
    _end(parent, signal.SIGKILL)
    with Embedded(tmp_path) as successor:  # no wait here: start() itself waits for the first to end
        assert _gone(pid)
        assert _values(successor, name, 1) == [b"kept"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux signals the death of a parent")
def test_the_broker_ends_with_its_watcher(tmp_path: Path) -> None:
    """kill -9 of the watcher also ends Java, and the object reports that its broker has ended."""
    broker = Embedded(tmp_path).start()
    try:
        pid = broker.pid
        assert pid is not None
        watcher = psutil.Process(pid).parent()
        assert watcher is not None and watcher.ppid() == os.getpid()
        watcher.kill()
        wait_for(lambda: _gone(pid), 60, f"the broker {pid} to end with its watcher")
        wait_for(lambda: not broker.running, 30, "the object to notice")
    finally:
        broker.stop()


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_the_terminals_interrupt_does_not_reach_the_broker(kept: Embedded) -> None:
    """Java runs in a session of its own. Ctrl-C reaches only the parent, which may still need the broker to drain."""
    assert kept.pid is not None
    assert os.getsid(kept.pid) != os.getsid(0) and os.getpgid(kept.pid) != os.getpgid(0)


def test_the_stopped_leave_nothing(name: str) -> None:
    """stop() removes the process and temporary data; a second stop() is harmless."""
    broker = Embedded().start()
    pid, data = broker.pid, broker.data
    broker.stop()
    broker.stop()
    assert pid is not None and _gone(pid) and not data.exists()


def test_someone_elses_port_does_not_count_as_kafka() -> None:
    """A port whose server answers nonsense and hangs up is not a Kafka."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        result = pool.submit(cluster_at, "127.0.0.1", server.getsockname()[1])
        connection, _ = server.accept()
        connection.sendall(b"\x00\x00\x00\x04HTTP")
        connection.close()
        assert result.result(60) is None


def test_a_first_use_by_many_fills_the_cache_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When several callers find the cache empty, one downloads, all get the same jars, and no partial file is left."""
    downloads: list[Path] = []

    def fetch(repository: Path, _coordinates: jars.Coordinates) -> list[Path]:
        downloads.append(repository)
        repository.mkdir()
        made = [repository / "a.jar", repository / "b.jar"]
        for jar in made:
            with zipfile.ZipFile(jar, "w") as archive:
                archive.writestr("x", "y" * 1000)
        return made

    monkeypatch.setattr(jars, "_fetch", fetch)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: kafka_jars(tmp_path), range(4)))
    assert len(downloads) == 1
    assert found == [found[0]] * 4 and [jar.name for jar in found[0]] == ["a.jar", "b.jar"]
    assert not list(tmp_path.glob("download-*")) and jars.cached(tmp_path)


def test_a_damaged_download_is_never_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A truncated jar is refused with a reason, and the cache stays empty."""

    def fetch(repository: Path, _coordinates: jars.Coordinates) -> list[Path]:
        repository.mkdir()
        (repository / "a.jar").write_bytes(b"PK\x03\x04 and no more")
        return [repository / "a.jar"]

    monkeypatch.setattr(jars, "_fetch", fetch)
    with pytest.raises(JarsUnavailable, match="Maven Central failed"):
        kafka_jars(tmp_path)
    assert not jars.cached(tmp_path) and not list(tmp_path.glob("download-*"))


def test_the_settings_that_one_node_needs(tmp_path: Path) -> None:
    """Every internal topic fits on one node: no replication factor or in-sync minimum exceeds 1."""
    settings = properties(tmp_path, 9092, 9093)
    of_replicas = {k: v for k, v in settings.items() if k.endswith(("replication.factor", "min.isr"))}
    assert len(of_replicas) == 5 and set(of_replicas.values()) == {"1"}
    assert "0.0.0.0" not in str(settings)


async def test_waiting_says_what_was_awaited() -> None:
    """Both wait functions return the first true value. On timeout they name the fact and the last value seen."""
    facts = iter([0, "", "found"])
    assert wait_for(lambda: next(facts), 60, "a fact") == "found"
    with pytest.raises(AssertionError, match=r"waited 0 s for a fact; last seen: \[\]"):
        wait_for(list, 0, "a fact")

    async def fact() -> int:
        return 3

    assert await eventually(fact, 60, "a fact") == 3
    with pytest.raises(AssertionError, match="waited 0 s for a fact; last seen: None"):
        await eventually(lambda: None, 0, "a fact")
