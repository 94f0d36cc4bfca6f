"""One process that runs batches, how a process ended, and what the lending and the supervising thread share."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from failsoft.models.isolation.backoff import Restarts
from failsoft.models.isolation.codec import About, Block
from failsoft.models.isolation.forkserver import STOP
from failsoft.models.isolation.transport import Channel, Segment
from failsoft.schemas import wire

TICK = 0.02
"""Seconds within which a waiting call sees that it was cancelled; it must be back 100 ms after."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended: ``why`` for counting (crashed, memory, timeout, load, unloaded), ``message`` for people."""

    why: str
    message: str


@dataclass(eq=False, slots=True)
class Replica:
    """One process, its socket, its stop pipe and its segment. The call that has taken it has it alone."""

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


@dataclass(eq=False, slots=True)
class Shared:
    """What calls and the supervisor share about one model's processes. Whoever writes a field holds ``changed``.

    ``due`` is when the next process may be started, ``last`` says how the last one ended, ``control`` is the
    forkserver's socket while there is one. ``refused`` says why the model never loaded. ``closed``: nothing is lent any
    more; ``ending``: the supervisor ends all processes.
    """

    due: float
    changed: threading.Condition = field(default_factory=threading.Condition)
    idle: deque[Replica] = field(default_factory=deque)
    alive: dict[int, Replica] = field(default_factory=dict)
    restarts: Restarts = field(default_factory=Restarts)
    last: str = "its process has not started yet"
    control: Channel | None = None
    ever_loaded: bool = False
    refused: str | None = None
    closed: bool = False
    ending: bool = False
