"""Owns the thread that starts, watches and ends the processes of one isolated model, and restarts them with back-off.

The thread lives as long as the processes. The processes ask Linux to end them with their parent, and Linux then ends
them with the *thread* that started them.
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

from failsoft.models.isolation import codec
from failsoft.models.isolation.codec import Damaged, JsonObject
from failsoft.models.isolation.replica import TICK, Clock, Death, Replica, Shared
from failsoft.models.isolation.transport import Channel, ChannelClosed, Segment
from failsoft.models.runtime.memory import out_of_memory
from failsoft.schemas import wire
from failsoft.schemas.config import size

LOAD_WITHIN = 120.0
"""Seconds that loading and warming may take before the process counts as hanging. Gigabytes from a slow disk take about
a minute."""

_LONGEST_LINE = 200  # characters kept of the last line on stderr


def idle_for(now: float, due: float, load_until: float | None, missing: bool) -> float | None:
    """Seconds that the supervisor may sleep if no message arrives; None: until a message arrives.

    ``load_until`` is the time limit of the load under way, or None without a load. ``missing``: a process has to be
    started, at ``due`` or later. All times are monotonic seconds.
    """
    if load_until is not None:
        return max(0.0, load_until - now) + TICK
    return max(0.0, due - now) if missing else None


def death_of(code: int, stderr: str, memory: int | None) -> Death:
    """Describes how a process ended, from its exit code, its stderr and its memory limit.

    ``code`` is negative for a signal; ``stderr`` is the text that the process wrote; ``memory`` is in bytes, None for
    no limit.
    """
    last_line = stderr.splitlines()[-1][:_LONGEST_LINE] if stderr else ""
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    if memory is not None and out_of_memory(stderr):
        return Death("memory", f"its process was over its memory limit of {size.text(memory)} ({how})")
    if code == -signal.SIGKILL:
        return Death("crashed", f"its process died ({how}, as the kernel sends when memory runs out)")
    return Death("crashed", f"its process died ({how}{': ' + last_line if last_line else ''})")


class ReplicaSupervisor:
    """Keeps ``count`` processes of the model in ``order`` running. Only its own thread runs the private methods."""

    def __init__(
        self,
        shared: Shared,
        order: JsonObject,
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
        """Waits until all processes have ended. The caller has set ``shared.ending`` before."""
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
        ) as error:  # file descriptors or memory have run out, or the forkserver has just ended
            self._wait_after(Death("load", f"its process could not be started: {error}"))

    def _start_forkserver(self) -> None:
        our_end, its_end = socket.socketpair()
        errors, stderr_end = os.pipe()
        # The supervisor reads stderr only after a process died. A process must not block on a full pipe, so text
        # beyond the pipe's capacity is lost.
        os.set_blocking(stderr_end, False)
        os.set_blocking(errors, False)
        # FAILSOFT_ variables hold the pipeline's passwords: a model's process must not have them.
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FAILSOFT_")}
        added = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        # Newer Python versions warn on stderr about a fork in a process with threads. The last line of stderr is used
        # as the reason for a crash, so the warning is turned off.
        added["PYTHONWARNINGS"] = "ignore::DeprecationWarning"
        module = "failsoft.models.isolation.forkserver"
        command = [sys.executable, "-P", "-m", module, str(os.getpid()), str(its_end.fileno())]
        try:
            self._forkserver = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr_end,
                pass_fds=[its_end.fileno()],
                env=kept | added,
            )
        except OSError:
            our_end.close()
            os.close(errors)
            raise
        finally:
            its_end.close()
            os.close(stderr_end)
        self._errors, self._load_until = errors, self._clock() + LOAD_WITHIN
        control = Channel(our_end)
        with self._shared.changed:
            self._shared.control = control
        control.send(self._order)

    def _fork(self) -> None:
        shared = self._shared
        assert shared.control is not None
        our_end, its_end = socket.socketpair()
        stopped, stop = os.pipe()
        os.set_blocking(stop, False)
        segment = Segment.create()
        self._forks += 1
        fds = [its_end.fileno(), stopped, segment.fd]
        try:
            with shared.changed:  # Replicas.kill writes to the same socket
                socket.send_fds(shared.control.socket, [wire.dumps({"fork": self._forks}) + b"\n"], fds)
        except OSError:
            our_end.close()
            segment.close()
            os.close(stop)
            raise
        finally:
            its_end.close()
            os.close(stopped)
        with shared.changed:
            replica = shared.alive[self._forks] = Replica(self._forks, Channel(our_end, TICK), stop, segment)
            shared.idle.append(replica)
            shared.changed.notify_all()

    def _listen(self, control: Channel) -> None:
        try:
            message = control.receive()
            while message is not None:
                self._handle(message)
                message = control.receive() if control.pending else None
        except (ChannelClosed, Damaged, KeyError, TypeError, ValueError):
            self._forkserver_ended()

    def _handle(self, message: JsonObject) -> None:
        shared = self._shared
        if "loaded" in message:
            dtypes, times = codec.dtypes(message), codec.times(message)
            with shared.changed:
                shared.dtypes, shared.times = dtypes, times
                self._loaded = shared.ever_loaded = True
                shared.changed.notify_all()
        elif "unloadable" in message:
            reason = str(message["unloadable"])
            if self._memory is not None and out_of_memory(reason):
                reason += f" (its card's memory is {size.text(self._memory)})"
            self._refuse_or_wait(Death("load", reason))
        elif (replica := shared.alive.get(message.get("ended", 0))) is not None:
            # Read stderr even if the replica was killed, or its text would be taken for that of the next death.
            own = self._fate(int(message["code"]))
            death = replica.killed or own
            self._reap(replica, death)
            self._wait_after(death)
            self._on_death(death)

    def _forkserver_ended(self) -> None:
        """The forkserver ended, and all replicas that it forked end with it."""
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
        """Refuses a model that never loaded. A model that loaded before is retried after the back-off."""
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
        """Takes a dead replica out of use. If a call still holds the replica, ``give_back`` closes it."""
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
        """Ends the forkserver by closing its socket, and its replicas with it. Waits, so that no process is left."""
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
        stderr = ""
        with contextlib.suppress(BlockingIOError):
            stderr = os.read(self._errors, 1 << 16).decode(errors="replace").strip()
        return death_of(code, stderr, self._memory)
