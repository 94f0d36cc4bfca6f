"""Owns one replica's handle, how a process ended, and the state shared by calls and the supervisor's thread."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from failsoft.models.isolation.backoff import Restarts
from failsoft.models.isolation.codec import Block, JsonObject
from failsoft.models.isolation.forkserver import STOP
from failsoft.models.isolation.transport import Channel, Segment
from failsoft.models.runtime.run_times import RunTimes
from failsoft.schemas import wire

TICK = 0.02
"""Seconds between a waiting call's checks for its cancellation. A cancelled call must be back within 100 ms."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended.

    Attributes:
        why: the reason as a metric label: crashed, memory, timeout, load or unloaded.
        message: the reason as a sentence.
    """

    why: str
    message: str


@dataclass(eq=False, slots=True)
class Replica:
    """One process that runs batches. One call at a time uses it.

    Attributes:
        number: identifies the process to the forkserver.
        channel: the socket for messages.
        stop: file descriptor of the pipe that ends calls.
        segment: shared memory for batches and answers.
        calls: calls sent so far; the last call has this number.
        busy: a call uses the process now.
        killed: why the worker killed it, None if it did not.
        death: how it ended, None while it is alive.
    """

    number: int
    channel: Channel
    stop: int
    segment: Segment
    calls: int = 0
    busy: bool = False
    killed: Death | None = None
    death: Death | None = None

    def send(self, about: JsonObject, blocks: Sequence[Block]) -> int:
        """Sends a batch and returns the call's number. Raises ChannelClosed if the process is gone."""
        self.calls += 1
        self.channel.send({"run": self.calls, "blocks": self.segment.write([wire.dumps(about), *blocks])})
        return self.calls

    def end_call(self, number: int) -> None:
        """Asks the process to end call ``number`` and all calls before it. Does not wait; any thread may call it."""
        with contextlib.suppress(OSError):
            os.write(self.stop, STOP.pack(number))

    def close(self) -> None:
        self.channel.close()
        self.segment.close()
        os.close(self.stop)


@dataclass(eq=False, slots=True)
class Shared:
    """The state of one model's processes that calls and the supervisor share. Hold ``changed`` to write a field.

    Attributes:
        due: when the next process may be started (monotonic seconds).
        changed: the lock; waiting threads are notified through it.
        idle: replicas that no call uses.
        alive: all replicas, by number.
        restarts: the back-off of restarts.
        last: how the last process ended, as a sentence.
        control: the forkserver's socket, None without a forkserver.
        ever_loaded: the model has been loaded at least once.
        dtypes: the type that the model computes a feature in, by feature; empty until the model is loaded.
        times: how long its runs take, without the way to the process and back; None if that is not known.
        refused: why the model could not be loaded the first time, None if it could.
        closed: no call gets a replica any more.
        ending: the supervisor ends all processes.
    """

    due: float
    changed: threading.Condition = field(default_factory=threading.Condition)
    idle: deque[Replica] = field(default_factory=deque)
    alive: dict[int, Replica] = field(default_factory=dict)
    restarts: Restarts = field(default_factory=Restarts)
    last: str = "its process has not started yet"
    control: Channel | None = None
    ever_loaded: bool = False
    dtypes: Mapping[str, str] = field(default_factory=dict)
    times: RunTimes | None = None
    refused: str | None = None
    closed: bool = False
    ending: bool = False
