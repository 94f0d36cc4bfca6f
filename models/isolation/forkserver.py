"""Owns an isolated model's process: it loads the model once and forks its replicas.

The command is ``-m failsoft.models.isolation.forkserver PARENT FD``.

The first process, the *forkserver*, never runs a batch of the worker. It loads the model, warms it, and forks a replica
each time the worker asks for one. A fork takes milliseconds and shares the model's memory until it is written. The
forkserver reports to the worker how each replica ended.

A fork copies only one thread. That is safe here: a session with one thread per call has no thread pool (ONNX Runtime
starts one thread at import, which only waits to send telemetry). If a lock is copied while it is held, the replica
hangs. Then it is stopped at its deadline like any model that hangs, and replaced by a new fork.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from pathlib import Path

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.repository import Artifact
from failsoft.models.isolation import codec
from failsoft.models.isolation.transport import Channel, ChannelClosed, Segment
from failsoft.models.runtime.parent_death import ender
from failsoft.models.runtime.session import Cancel, Session, Unloadable
from failsoft.schemas import wire

STOP = struct.Struct("=q")
"""The message with which the worker ends a call: the call's number."""

FAILED = 70
"""Exit code of a replica that ended with an unexpected exception. The traceback is on stderr."""

LARGEST_HEADER = 1 << 30
"""Largest JSON header of a batch or an answer, in bytes. An answer lists each failed row with a message."""

_FDS = 3  # file descriptors sent for one fork: socket, stop pipe, segment


def main() -> int:
    """Runs the forkserver until the worker closes the socket. Returns the exit code: 1 if the model does not load."""
    parent, fd = int(sys.argv[1]), int(sys.argv[2])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A terminal or a supervisor sends these signals to the whole process group. The worker then drains and still
        # needs its models. The forkserver ends when the worker closes the socket.
        signal.signal(number, signal.SIG_IGN)
    ender(parent)()
    control = Channel(socket.socket(fileno=fd))
    order = control.receive()
    assert order is not None
    _limit(order["memory"])
    card = ModelCard.model_validate(order["card"])
    artifact = Artifact(order["model"], order["version"], Path(order["path"]), order["sha256"], None, {}, {})
    try:
        session = Session(artifact, card)
        session.warm()
    except Unloadable as error:
        control.send({"unloadable": str(error)})
        return 1
    gc.collect()
    gc.freeze()  # the collector does not write to frozen objects, so their memory stays shared between the replicas
    times = session.times
    control.send(
        {
            "loaded": os.getpid(),
            "dtypes": dict(session.dtypes),
            "times": None if times is None else [times.run, times.row],
        }
    )
    with contextlib.suppress(ChannelClosed):
        _Forkserver(control, session).run()
    return 0


class _Forkserver:
    def __init__(self, control: Channel, session: Session) -> None:
        self._control, self._session = control, session
        self._poll = select.poll()
        self._poll.register(control.socket, select.POLLIN)
        self._pids: dict[int, int] = {}
        self._lives: dict[int, int] = {}
        self._fds: list[int] = []

    def run(self) -> None:
        """Forks, kills and reaps replicas on request. Raises ChannelClosed when the worker closes the socket."""
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._lives:
                    self._reap(fd)
                else:
                    self._listen()

    def _listen(self) -> None:
        chunk, fds, _, _ = socket.recv_fds(self._control.socket, 1 << 16, 16 * _FDS)
        if not chunk:
            raise ChannelClosed("the worker is gone")
        self._control.feed(chunk)
        self._fds += fds
        while self._control.pending:
            message = self._control.receive()
            assert message is not None
            if "fork" in message:
                fds, self._fds = self._fds[:_FDS], self._fds[_FDS:]
                self._fork(message["fork"], *fds)
            elif message["kill"] in self._pids:  # not reaped yet, so the pid still belongs to this replica
                os.kill(self._pids[message["kill"]], signal.SIGKILL)

    def _fork(self, number: int, connection: int, stop: int, segment: int) -> None:
        life, held = os.pipe()  # the replica holds ``held`` open; ``life`` becomes readable when the replica ends
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            code = FAILED
            try:
                ender(parent)()
                self._control.close()
                for fd in (life, *self._lives):
                    os.close(fd)
                _serve(self._session, Channel(socket.socket(fileno=connection)), stop, Segment(segment))
                code = 0
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
            finally:
                os._exit(code)
        for fd in (held, connection, stop, segment):
            os.close(fd)
        self._pids[number], self._lives[life] = pid, number
        self._poll.register(life, select.POLLIN)

    def _reap(self, life: int) -> None:
        number = self._lives.pop(life)
        self._poll.unregister(life)
        os.close(life)
        _, status = os.waitpid(self._pids.pop(number), 0)
        self._control.send({"ended": number, "code": os.waitstatus_to_exitcode(status)})


def _serve(session: Session, channel: Channel, stop: int, segment: Segment) -> None:
    """Runs batches in a replica, one after another, until the worker closes the socket."""
    stops, specs = _Stops(stop), session.card.specs
    with contextlib.suppress(ChannelClosed):
        while True:
            call = channel.receive()
            assert call is not None
            segment.mark(call["run"])  # if the process dies from here on, this call is the cause
            cancel = stops.begin(call["run"])
            header, *blocks = segment.read(call["blocks"])
            columns = codec.columns(wire.loads(bytes(header), LARGEST_HEADER), blocks, specs)
            about, answers = codec.send_answer(session.run(columns, cancel))
            del columns, blocks, header  # they are views of the memory that the answer overwrites
            channel.send({"run": call["run"], "blocks": segment.write([wire.dumps(about), *answers])})


class _Stops:
    """Ends calls from a separate thread. The thread also notices that the worker is gone while a call does not end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._number = 0
        self._stopped = 0
        self._cancel = Cancel()
        threading.Thread(target=self._watch, daemon=True).start()

    def begin(self, number: int) -> Cancel:
        """The Cancel of call ``number``. It is already set if the worker ended the call before it began."""
        with self._lock:
            self._number, self._cancel = number, Cancel()
            if number <= self._stopped:
                self._cancel.set()
            return self._cancel

    def _watch(self) -> None:
        while chunk := os.read(self._fd, 64 * STOP.size):
            with self._lock:
                (self._stopped,) = STOP.unpack(chunk[-STOP.size :])
                if self._number <= self._stopped:
                    self._cancel.set()
        os._exit(0)


def _limit(memory: int | None) -> None:
    """Sets the process's limits: no core file, and on Linux at most ``memory`` bytes of data (None: no limit).

    A core file would hold events, and take seconds to write. ``memory`` limits the data segment and private mappings:
    the interpreter, the model, and all that a run allocates. It does not limit shared memory and files mapped as code.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory is not None and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


if __name__ == "__main__":
    sys.exit(main())
