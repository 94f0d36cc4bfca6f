"""The thread that starts, watches and ends the processes of one isolated model, and starts them again with backoff.

It lives as long as the processes do: Linux ends a child with the *thread* that started it, if asked to end it with its
parent.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

from failsoft.models.isolation.codec import About, Damaged
from failsoft.models.isolation.replica import TICK, Clock, Death, Replica, Shared
from failsoft.models.isolation.transport import Channel, ChannelClosed, Segment
from failsoft.models.runtime.memory import out_of_memory
from failsoft.schemas import wire
from failsoft.schemas.config import size

LOAD_WITHIN = 120.0
"""Seconds to load and warm a model, before it counts as hanging: gigabytes from a slow disk take one of them."""

_SAID = 200  # characters of a message that are kept


def idle_for(now: float, due: float, load_until: float | None, missing: bool) -> float | None:
    """Seconds until there is something to do without a message, None for ever.

    ``load_until`` is when a load that is under way is late, None when none is; ``missing``: a process has to be
    started, and may be from ``due`` on.
    """
    if load_until is not None:
        return max(0.0, load_until - now) + TICK
    return max(0.0, due - now) if missing else None


def fate(code: int, said: str, memory: int | None) -> Death:
    """In words, from an exit code (negative: a signal), what stands on stderr and the memory limit."""
    last = said.splitlines()[-1][:_SAID] if said else ""
    name = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    if memory is not None and out_of_memory(said):
        return Death("memory", f"its process was over its memory limit of {size.text(memory)} ({name})")
    if code == -signal.SIGKILL:
        return Death("crashed", f"its process died ({name}, as the kernel sends when memory runs out)")
    return Death("crashed", f"its process died ({name}{': ' + last if last else ''})")


class ReplicaSupervisor:
    """Keeps ``count`` processes of the model in ``order`` running. Only its own thread runs what is private here."""

    def __init__(
        self,
        shared: Shared,
        order: About,
        count: int,
        memory: int | None,
        on_death: Callable[[Death], None],
        clock: Clock,
        draw: Callable[[], float],
    ) -> None:
        self._shared, self._order, self._count, self._memory = shared, order, count, memory
        self._on_death, self._clock, self._draw = on_death, clock, draw
        self._key = f"{order['model']}@{order['version']}"
        self._forkserver: subprocess.Popen[bytes] | None = None
        self._errors = -1
        self._load_until = 0.0
        self._loaded = False
        self._forks = 0
        self._waker, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._supervise, name=f"failsoft-{self._key}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Until all processes have ended; ``shared.ending`` is set already."""
        os.write(self._wake, b"x")
        self._thread.join()
        for fd in (self._waker, self._wake):
            os.close(fd)

    def _supervise(self) -> None:
        shared = self._shared
        while not shared.ending and shared.refused is None:
            self._start_what_is_due()
            poll = select.poll()
            poll.register(self._waker, select.POLLIN)
            if shared.control is not None:
                poll.register(shared.control.socket, select.POLLIN)
            pause = idle_for(self._clock(), shared.due, self._load_until if self._loading else None, self._missing)
            ready = {fd for fd, _ in poll.poll(None if pause is None else pause * 1000)}
            if shared.control is not None and shared.control.socket.fileno() in ready:
                self._listen(shared.control)
            elif self._forkserver is not None and self._loading and self._clock() > self._load_until:
                self._forkserver.kill()
        self._end_all()

    @property
    def _loading(self) -> bool:
        return self._forkserver is not None and not self._loaded

    @property
    def _missing(self) -> bool:
        return self._forkserver is None or len(self._shared.alive) < self._count

    def _start_what_is_due(self) -> None:
        if self._clock() < self._shared.due:
            return
        try:
            if self._forkserver is None:
                self._start_forkserver()
            while self._loaded and len(self._shared.alive) < self._count:
                self._fork()
        except (
            OSError,
            ChannelClosed,
        ) as error:  # no file descriptor or memory is left, or the forkserver is just ending
            self._wait_after(Death("load", f"its process could not be started: {error}"))

    def _start_forkserver(self) -> None:
        ours, theirs = socket.socketpair()
        errors, said = os.pipe()
        # Whoever writes more than a pipe holds loses the rest: nobody reads while it lives, and it may not wait.
        os.set_blocking(said, False)
        os.set_blocking(errors, False)
        # The pipeline's passwords are none of its business.
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FAILSOFT_")}
        given = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        # Later Pythons warn of forks beside threads: on stderr, where a crash's last words are looked for.
        given["PYTHONWARNINGS"] = "ignore::DeprecationWarning"
        module = "failsoft.models.isolation.forkserver"
        command = [sys.executable, "-P", "-m", module, str(os.getpid()), str(theirs.fileno())]
        try:
            self._forkserver = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                pass_fds=[theirs.fileno()],
                env=kept | given,
            )
        except OSError:
            ours.close()
            os.close(errors)
            raise
        finally:
            theirs.close()
            os.close(said)
        self._errors, self._load_until = errors, self._clock() + LOAD_WITHIN
        control = Channel(ours)
        with self._shared.changed:
            self._shared.control = control
        control.send(self._order)

    def _fork(self) -> None:
        shared = self._shared
        assert shared.control is not None
        ours, theirs = socket.socketpair()
        stopped, stop = os.pipe()
        os.set_blocking(stop, False)
        segment = Segment.create()
        self._forks += 1
        given = [theirs.fileno(), stopped, segment.fd]
        try:
            with shared.changed:  # whoever kills writes to it too
                socket.send_fds(shared.control.socket, [wire.dumps({"fork": self._forks}) + b"\n"], given)
        except OSError:
            ours.close()
            segment.close()
            os.close(stop)
            raise
        finally:
            theirs.close()
            os.close(stopped)
        with shared.changed:
            replica = shared.alive[self._forks] = Replica(self._forks, Channel(ours, TICK), stop, segment)
            shared.idle.append(replica)
            shared.changed.notify_all()

    def _listen(self, control: Channel) -> None:
        try:
            message = control.receive()
            while message is not None:
                self._heard(message)
                message = control.receive() if control.pending else None
        except (ChannelClosed, Damaged, TypeError, ValueError):
            self._forkserver_ended()

    def _heard(self, message: About) -> None:
        shared = self._shared
        if "loaded" in message:
            with shared.changed:
                self._loaded = shared.ever_loaded = True
                shared.changed.notify_all()
        elif "unloadable" in message:
            said = str(message["unloadable"])
            if self._memory is not None and out_of_memory(said):
                said += f" (its card's memory is {size.text(self._memory)})"
            self._refuse_or_wait(Death("load", said))
        elif (replica := shared.alive.get(message.get("ended", 0))) is not None:
            found = self._fate(int(message["code"]))  # also of one that was killed: what it said is no other's
            death = replica.killed or found
            self._reap(replica, death)
            self._wait_after(death)
            self._on_death(death)

    def _forkserver_ended(self) -> None:
        """With it end all that it forked."""
        assert self._forkserver is not None
        self._forkserver.kill()
        code = self._forkserver.wait()
        late = not self._loaded and self._clock() > self._load_until
        death = Death("load", f"it did not load within {LOAD_WITHIN:g} s") if late else self._fate(code)
        loaded = self._loaded
        for replica in list(self._shared.alive.values()):
            self._reap(replica, death)
        self._drop_forkserver()
        if loaded:
            self._wait_after(death)
            self._on_death(death)
        else:
            self._refuse_or_wait(Death("load", f"{self._key}: while it loaded, {death.message}"))

    def _drop_forkserver(self) -> None:
        with self._shared.changed:
            control, self._shared.control = self._shared.control, None
        if control is not None:
            control.close()
            os.close(self._errors)
        self._forkserver, self._loaded = None, False

    def _refuse_or_wait(self, death: Death) -> None:
        """A model that never loaded is refused; one that did may do so again."""
        if self._forkserver is not None:
            self._forkserver.wait()
            self._drop_forkserver()
        with self._shared.changed:
            if not self._shared.ever_loaded:
                self._shared.refused = death.message
                self._shared.changed.notify_all()
                return
        self._wait_after(death)
        self._on_death(death)

    def _reap(self, replica: Replica, death: Death) -> None:
        """It is lent no more. A call that has it closes it when it gives it back."""
        shared = self._shared
        with shared.changed:
            shared.alive.pop(replica.number, None)
            replica.death = death
            if replica in shared.idle:
                shared.idle.remove(replica)
            if not replica.busy:
                replica.close()
            shared.changed.notify_all()

    def _wait_after(self, death: Death) -> None:
        now = self._clock()
        with self._shared.changed:
            self._shared.due = now + self._shared.restarts.after(now, self._draw())
            self._shared.last = death.message

    def _end_all(self) -> None:
        """The end of its socket ends the forkserver, and its forks with it; it is waited for, so that none is left."""
        if self._forkserver is not None:
            for replica in list(self._shared.alive.values()):
                self._reap(replica, Death("unloaded", f"{self._key} is unloaded"))
            forkserver = self._forkserver
            self._drop_forkserver()
            try:
                forkserver.wait(2)
            except subprocess.TimeoutExpired:
                forkserver.kill()
                forkserver.wait()

    def _fate(self, code: int) -> Death:
        said = ""
        with contextlib.suppress(BlockingIOError):
            said = os.read(self._errors, 1 << 16).decode(errors="replace").strip()
        return fate(code, said, self._memory)
