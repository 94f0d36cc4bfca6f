"""The processes of one isolated model: started, lent to one call at a time, killed, and started again with backoff.

All of that is done by one thread of its own, which lives as long as they do: Linux ends a child with the *thread* that
started it, if asked to end it with its parent.
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
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from failsoft.models.isolation.backoff import Restarts
from failsoft.models.isolation.codec import About, Block, Damaged
from failsoft.models.isolation.forkserver import STOP
from failsoft.models.isolation.transport import Channel, Ended, Segment
from failsoft.models.runtime.memory import out_of_memory
from failsoft.models.runtime.session import Cancel, Unloadable
from failsoft.schemas import wire
from failsoft.schemas.config import size
from failsoft.schemas.failure import Failure, Kind

TICK = 0.02
"""Seconds within which a waiting call sees that it was cancelled; it must be back 100 ms after."""

WAIT = 0.5
"""Seconds that a call waits for a process while none is up: a fork takes a hundredth of that. What takes longer (a
load, a backoff) is not waited for, so that the fallback answers soon."""

LOAD_WITHIN = 120.0
"""Seconds to load and warm a model, before it counts as hanging: gigabytes from a slow disk take one of them."""

REPORT = 1.0
"""Seconds that a call waits to hear why its process ended; it is told within milliseconds."""

_SAID = 200

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended: ``why`` for counting (crashed, memory, timeout, load, unloaded), ``message`` for people."""

    why: str
    message: str


@dataclass(eq=False, slots=True)
class Replica:
    """One process, and what it is reached by. Whoever has taken it has it alone."""

    number: int
    channel: Channel
    stop: int
    segment: Segment
    calls: int = 0
    busy: bool = False
    killed: Death | None = None
    death: Death | None = None

    def send(self, about: About, blocks: Sequence[Block]) -> int:
        """The call's number. Raises Ended when the process is gone already."""
        self.calls += 1
        self.channel.send({"run": self.calls, "blocks": self.segment.write([wire.dumps(about), *blocks])})
        return self.calls

    def end_call(self, number: int) -> None:
        """Ask it to end call ``number`` and all before; from any thread, and without waiting."""
        with contextlib.suppress(OSError):
            os.write(self.stop, STOP.pack(number))

    def close(self) -> None:
        self.channel.close()
        self.segment.close()
        os.close(self.stop)


class Replicas:
    """``count`` processes of the model in ``order``. Of its methods ``take`` and what follows are for any thread."""

    def __init__(
        self,
        order: About,
        count: int,
        memory: int | None,
        told: Callable[[Death], None],
        clock: Clock,
        draw: Callable[[], float],
    ) -> None:
        self._order, self._count, self._memory = order, count, memory
        self._told, self._clock, self._draw = told, clock, draw
        self.key = f"{order['model']}@{order['version']}"
        self._state = threading.Condition()
        self._idle: deque[Replica] = deque()
        self._alive: dict[int, Replica] = {}
        self._restarts = Restarts()
        self._due = clock()
        self._last = "its process has not started yet"
        self._forks = 0
        self._nursery: subprocess.Popen[bytes] | None = None
        self._control: Channel | None = None
        self._errors = -1
        self._load_until = 0.0
        self._loaded = False
        self._ever = False
        self._refused: str | None = None
        self._closed = False
        self._ending = False
        self._waker, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._supervise, name=f"failsoft-{self.key}", daemon=True)
        self._thread.start()

    # --- for whoever runs calls -----------------------------------------------------------------------------------

    def wait_loaded(self) -> None:
        """Until the model is loaded and warmed. Raises Unloadable, with what the process said or how it ended."""
        with self._state:
            self._state.wait_for(lambda: self._ever or self._refused is not None or self._closed)
            if self._refused is not None:
                raise Unloadable(self._refused)

    def take(self, cancel: Cancel | None) -> Replica | Failure:
        """A process of one's own, until ``give_back``. UNAVAILABLE when none comes up or free in time."""
        until: float | None = None
        with self._state:
            while True:
                if self._closed:
                    return Failure(Kind.UNAVAILABLE, f"{self.key} is unloaded")
                if self._idle:
                    replica = self._idle.popleft()
                    replica.busy = True
                    return replica
                late = cancel is not None and cancel.expired
                if self._alive and late:
                    told = f"all {self._count} processes of {self.key} were busy until its deadline: more replicas help"
                    return Failure(Kind.UNAVAILABLE, told)
                if not self._alive:
                    now = self._clock()
                    until = now + WAIT if until is None else until
                    if late or now >= until or self._due > until:
                        return Failure(Kind.UNAVAILABLE, f"no process of {self.key} is up: {self._last}")
                self._state.wait(TICK)

    def give_back(self, replica: Replica, answered: bool) -> None:
        """For the next call."""
        with self._state:
            replica.busy = False
            if answered:
                self._restarts.answered()
            if replica.death is not None:
                replica.close()
            elif replica.killed is None:
                self._idle.append(replica)
            self._state.notify_all()

    def kill(self, replica: Replica, why: Death) -> None:
        """End it now, which is told as ``why``; it is not lent again."""
        replica.killed = why
        with self._state:
            control = self._control if replica.death is None else None
            if control is not None:
                with contextlib.suppress(Ended):
                    control.send({"kill": replica.number})

    def death(self, replica: Replica) -> Death:
        """How a process that does not answer any more has ended."""
        with self._state:
            self._state.wait_for(lambda: replica.death is not None, REPORT)
            return replica.death or Death("crashed", "its process closed its socket")

    def close(self, within: float) -> None:
        """Ends all processes, once the calls under way are back, or after ``within`` seconds."""
        with self._state:
            if self._closed:
                return
            self._closed = True
            self._state.notify_all()
            self._state.wait_for(lambda: not any(r.busy for r in self._alive.values()), within)
            self._ending = True
        os.write(self._wake, b"x")
        self._thread.join()
        for fd in (self._waker, self._wake):
            os.close(fd)

    # --- the thread -----------------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        while not self._ending and self._refused is None:
            self._start_what_is_due()
            poll = select.poll()
            poll.register(self._waker, select.POLLIN)
            if self._control is not None:
                poll.register(self._control.socket, select.POLLIN)
            pause = self._idle_for()
            ready = {fd for fd, _ in poll.poll(None if pause is None else pause * 1000)}
            if self._control is not None and self._control.socket.fileno() in ready:
                self._listen(self._control)
            elif self._nursery is not None and not self._loaded and self._clock() > self._load_until:
                self._nursery.kill()
        self._bury_all()

    def _start_what_is_due(self) -> None:
        if self._clock() < self._due:
            return
        try:
            if self._nursery is None:
                self._start_nursery()
            while self._loaded and len(self._alive) < self._count:
                self._fork()
        except (OSError, Ended) as error:  # no file descriptor or memory is left, or the nursery is just ending
            self._wait_after(Death("load", f"its process could not be started: {error}"))

    def _idle_for(self) -> float | None:
        """Seconds until there is something to do without being told, None for ever."""
        now = self._clock()
        if self._nursery is not None and not self._loaded:
            return max(0.0, self._load_until - now) + TICK
        if self._nursery is None or len(self._alive) < self._count:
            return max(0.0, self._due - now)
        return None

    def _start_nursery(self) -> None:
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
        command = [
            sys.executable,
            "-P",
            "-m",
            "failsoft.models.isolation.forkserver",
            str(os.getpid()),
            str(theirs.fileno()),
        ]
        try:
            self._nursery = subprocess.Popen(
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
        with self._state:
            self._control = Channel(ours)
        self._control.send(self._order)

    def _fork(self) -> None:
        assert self._control is not None
        ours, theirs = socket.socketpair()
        stopped, stop = os.pipe()
        os.set_blocking(stop, False)
        segment = Segment.create()
        self._forks += 1
        given = [theirs.fileno(), stopped, segment.fd]
        try:
            with self._state:  # whoever kills writes to it too
                socket.send_fds(self._control.socket, [wire.dumps({"fork": self._forks}) + b"\n"], given)
        except OSError:
            ours.close()
            segment.close()
            os.close(stop)
            raise
        finally:
            theirs.close()
            os.close(stopped)
        with self._state:
            replica = self._alive[self._forks] = Replica(self._forks, Channel(ours, TICK), stop, segment)
            self._idle.append(replica)
            self._state.notify_all()

    def _listen(self, control: Channel) -> None:
        try:
            message = control.receive()
            while message is not None:
                self._heard(message)
                message = control.receive() if control.pending else None
        except (Ended, Damaged, TypeError, ValueError):
            self._nursery_ended()

    def _heard(self, message: About) -> None:
        if "loaded" in message:
            with self._state:
                self._loaded = self._ever = True
                self._state.notify_all()
        elif "unloadable" in message:
            told = str(message["unloadable"])
            if self._memory is not None and out_of_memory(told):
                told += f" (its card's memory is {size.text(self._memory)})"
            self._refuse_or_wait(Death("load", told))
        elif (replica := self._alive.get(message.get("ended", 0))) is not None:
            found = self._fate(int(message["code"]))  # also of one that was killed: what it said is no other's
            death = replica.killed or found
            self._bury(replica, death)
            self._wait_after(death)
            self._told(death)

    def _nursery_ended(self) -> None:
        """With it end all that it forked."""
        assert self._nursery is not None and self._control is not None
        self._nursery.kill()
        code = self._nursery.wait()
        late = not self._loaded and self._clock() > self._load_until
        death = Death("load", f"it did not load within {LOAD_WITHIN:g} s") if late else self._fate(code)
        loaded = self._loaded
        for replica in list(self._alive.values()):
            self._bury(replica, death)
        self._drop_nursery()
        if loaded:
            self._wait_after(death)
            self._told(death)
        else:
            self._refuse_or_wait(Death("load", f"{self.key}: while it loaded, {death.message}"))

    def _drop_nursery(self) -> None:
        with self._state:
            control, self._control = self._control, None
        if control is not None:
            control.close()
            os.close(self._errors)
        self._nursery, self._loaded = None, False

    def _refuse_or_wait(self, death: Death) -> None:
        """A model that never loaded is refused; one that did may do so again."""
        if self._nursery is not None:
            self._nursery.wait()
            self._drop_nursery()
        with self._state:
            if not self._ever:
                self._refused = death.message
                self._state.notify_all()
                return
        self._wait_after(death)
        self._told(death)

    def _bury(self, replica: Replica, death: Death) -> None:
        with self._state:
            self._alive.pop(replica.number, None)
            replica.death = death
            if replica in self._idle:
                self._idle.remove(replica)
            if not replica.busy:
                replica.close()
            self._state.notify_all()

    def _wait_after(self, death: Death) -> None:
        now = self._clock()
        with self._state:
            self._due = now + self._restarts.after(now, self._draw())
            self._last = death.message

    def _bury_all(self) -> None:
        """The end of its socket ends the nursery, and its forks with it; it is waited for, so that none is left."""
        if self._nursery is not None:
            for replica in list(self._alive.values()):
                self._bury(replica, Death("unloaded", f"{self.key} is unloaded"))
            nursery = self._nursery
            self._drop_nursery()
            try:
                nursery.wait(2)
            except subprocess.TimeoutExpired:
                nursery.kill()
                nursery.wait()

    def _fate(self, code: int) -> Death:
        """In words, from an exit code (negative: a signal) and what stands on stderr."""
        said = ""
        with contextlib.suppress(BlockingIOError):
            said = os.read(self._errors, 1 << 16).decode(errors="replace").strip()
        last = said.splitlines()[-1][:_SAID] if said else ""
        name = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if self._memory is not None and out_of_memory(said):
            return Death("memory", f"its process was over its memory limit of {size.text(self._memory)} ({name})")
        if code == -signal.SIGKILL:
            return Death("crashed", f"its process died ({name}, as the kernel sends when memory runs out)")
        return Death("crashed", f"its process died ({name}{': ' + last if last else ''})")
