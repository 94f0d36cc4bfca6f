"""Owns the lending of an isolated model's processes: each serves one call at a time, and is killed if it hangs.

supervisor.py starts and ends the processes on its own thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from failsoft.models.isolation.codec import JsonObject
from failsoft.models.isolation.replica import TICK, Clock, Death, Replica, Shared
from failsoft.models.isolation.supervisor import ReplicaSupervisor
from failsoft.models.isolation.transport import ChannelClosed
from failsoft.models.runtime.run_times import RunTimes
from failsoft.models.runtime.session import Cancel, Unloadable
from failsoft.schemas.failure import Failure, Kind

WAIT = 0.5
"""Seconds that a call waits for a process when none is up. A fork takes a hundredth of that. A call does not wait for
slower starts (a load, a back-off), so that the fallback answers soon."""

REPORT = 1.0
"""Seconds that a call waits for the report of how its process ended. The forkserver sends it within milliseconds."""


class Replicas:
    """``count`` processes of the model in ``order``. Its methods may be called from any thread."""

    def __init__(
        self,
        order: JsonObject,
        count: int,
        memory: int | None,
        on_death: Callable[[Death], None],
        clock: Clock,
        draw: Callable[[], float],
    ) -> None:
        """Starts to load the model. The supervisor's thread calls ``on_death`` once for each process that died."""
        self.key = f"{order['model']}@{order['version']}"
        self._count, self._clock = count, clock
        self._shared = Shared(clock())
        self._supervisor = ReplicaSupervisor(self._shared, order, count, memory, on_death, clock, draw)
        self._supervisor.start()

    def wait_loaded(self) -> tuple[Mapping[str, str], RunTimes | None]:
        """Waits until the model is loaded and warmed, and returns the ``dtypes`` and ``times`` of its session.

        Raises Unloadable with the process's error or how it ended.
        """
        shared = self._shared
        with shared.changed:
            shared.changed.wait_for(lambda: shared.ever_loaded or shared.refused is not None or shared.closed)
            if shared.refused is not None:
                raise Unloadable(shared.refused)
            return shared.dtypes, shared.times

    def take(self, cancel: Cancel | None) -> Replica | Failure:
        """A process for one call, until ``give_back``. UNAVAILABLE if no process comes up or becomes free in time."""
        shared = self._shared
        until: float | None = None
        with shared.changed:
            while True:
                if shared.closed:
                    return Failure(Kind.UNAVAILABLE, f"{self.key} is unloaded")
                if shared.idle:
                    replica = shared.idle.popleft()
                    replica.busy = True
                    return replica
                late = cancel is not None and cancel.expired
                if shared.alive and late:
                    message = f"all {self._count} processes of {self.key} were busy until the deadline: add replicas"
                    return Failure(Kind.UNAVAILABLE, message)
                if not shared.alive:
                    now = self._clock()
                    until = now + WAIT if until is None else until
                    if late or now >= until or shared.due > until:
                        return Failure(Kind.UNAVAILABLE, f"no process of {self.key} is up: {shared.last}")
                shared.changed.wait(TICK)

    def give_back(self, replica: Replica, answered: bool) -> None:
        """Makes the process free for the next call. ``answered``: the call got an answer; that resets the back-off."""
        shared = self._shared
        with shared.changed:
            replica.busy = False
            if answered:
                shared.restarts.answered()
            if replica.death is not None:
                replica.close()
            elif replica.killed is None:
                shared.idle.append(replica)
            shared.changed.notify_all()

    def kill(self, replica: Replica, why: Death) -> None:
        """Kills the process; ``why`` is reported as its death. No call gets it again."""
        replica.killed = why
        with self._shared.changed:
            control = self._shared.control if replica.death is None else None
            if control is not None:
                with contextlib.suppress(ChannelClosed):
                    control.send({"kill": replica.number})

    def death(self, replica: Replica) -> Death:
        """How a process that no longer answers ended. Waits for the report, at most REPORT seconds."""
        with self._shared.changed:
            self._shared.changed.wait_for(lambda: replica.death is not None, REPORT)
            return replica.death or Death("crashed", "its process closed its socket")

    def close(self, within: float) -> None:
        """Ends all processes once the calls under way have returned, or after ``within`` seconds."""
        shared = self._shared
        with shared.changed:
            if shared.closed:
                return
            shared.closed = True
            shared.changed.notify_all()
            shared.changed.wait_for(lambda: not any(r.busy for r in shared.alive.values()), within)
            shared.ending = True
        self._supervisor.join()
