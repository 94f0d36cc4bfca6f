"""A model's own process: ``-m models.isolation.forkserver PARENT FD`` loads the model once, and forks its replicas.

The first process, the *forkserver*, never runs a batch of the worker's: it loads, warms, and forks one replica for each
that the worker asks for, in milliseconds and with the model's memory shared until written. It tells the worker how each
replica ended. A fork copies one thread only, and here that is all that matters: a session of one thread a call has no
pool (ONNX Runtime's own at import only waits to tell its makers something). A lock that was copied shut all the same
would look like a model that hangs: stopped at its deadline, and forked anew.
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
"""What the worker writes to end a call: its number."""

FAILED = 70
"""Exit code of a replica that met what nobody expects; a traceback stands on stderr."""

MOST = 1 << 30
"""Bytes of the JSON of a batch or an answer: as many as a batch has failures, each with a message."""

_FDS = 3  # of one fork: socket, stop pipe, segment


def main() -> int:
    """The forkserver, until its worker closes the socket."""
    parent, fd = int(sys.argv[1]), int(sys.argv[2])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # They go to whole groups; the worker drains, and needs its models for that. The end of the socket ends us.
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
    gc.freeze()  # what is never looked at by the collector stays shared between the replicas
    control.send({"loaded": os.getpid()})
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
        """Forks, kills and reaps as the worker asks, until the socket ends: ChannelClosed."""
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
                given, self._fds = self._fds[:_FDS], self._fds[_FDS:]
                self._fork(message["fork"], *given)
            elif message["kill"] in self._pids:  # not reaped yet, so the number is still that process's
                os.kill(self._pids[message["kill"]], signal.SIGKILL)

    def _fork(self, number: int, connection: int, stop: int, segment: int) -> None:
        life, held = os.pipe()  # the replica holds one end for as long as it lives
        mother = os.getpid()
        pid = os.fork()
        if pid == 0:
            code = FAILED
            try:
                ender(mother)()
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
    """A replica: one batch after another, until the worker closes the socket."""
    stops, specs = _Stops(stop), session.card.specs
    with contextlib.suppress(ChannelClosed):
        while True:
            call = channel.receive()
            assert call is not None
            segment.mark(call["run"])  # from here on it is this call that kills
            cancel = stops.begin(call["run"])
            told, *blocks = segment.read(call["blocks"])
            columns = codec.columns(wire.loads(bytes(told), MOST), blocks, specs)
            about, answers = codec.send_answer(session.run(columns, cancel))
            del columns, blocks, told  # views of what is overwritten now
            channel.send({"run": call["run"], "blocks": segment.write([wire.dumps(about), *answers])})


class _Stops:
    """Ends calls from a thread of its own, which also notices when the worker is gone while a call does not end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._number = 0
        self._stopped = 0
        self._cancel = Cancel()
        threading.Thread(target=self._watch, daemon=True).start()

    def begin(self, number: int) -> Cancel:
        """What ends call ``number``; it may have been ended already."""
        with self._lock:
            self._number, self._cancel = number, Cancel()
            if number <= self._stopped:
                self._cancel.set()
            return self._cancel

    def _watch(self) -> None:
        while told := os.read(self._fd, 64 * STOP.size):
            with self._lock:
                (self._stopped,) = STOP.unpack(told[-STOP.size :])
                if self._number <= self._stopped:
                    self._cancel.set()
        os._exit(0)


def _limit(memory: int | None) -> None:
    """No core file: it would hold events, and take seconds. ``memory`` bounds the data segment and private mappings:
    the interpreter, the model, and all that a run allocates; not shared memory, nor the files mapped as code.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory is not None and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


if __name__ == "__main__":
    sys.exit(main())
