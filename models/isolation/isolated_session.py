"""A model in processes of its own: what it does to them, it does to them alone. The interface is that of Session.

``run`` sends a batch through shared memory and waits. A native crash ends the process and fails the batch; a run that
is cancelled is stopped inside the process if that helps, and else the process is killed; another is forked at once.

``memory`` bounds each process by RLIMIT_DATA, on Linux: the interpreter and ONNX Runtime (about 125 MB), the model, and
whatever a run allocates. Not bounded: shared memory (batches on their way), code mapped from files, and anything on
other systems. An allocation beyond it fails, inside ONNX Runtime mostly as an error of that run, which the process
survives. RLIMIT_AS would count reserved addresses that are never used, of which glibc makes 64 MB a thread; watching
the resident set would come too late: a single operator fills memory faster than anybody looks.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.repository import Artifact
from failsoft.models.isolation import codec
from failsoft.models.isolation.codec import About, Damaged
from failsoft.models.isolation.forkserver import MOST
from failsoft.models.isolation.pool import Replicas
from failsoft.models.isolation.replica import TICK, Clock, Death, Replica
from failsoft.models.isolation.transport import ChannelClosed
from failsoft.models.runtime.memory import out_of_memory
from failsoft.models.runtime.session import Cancel, late
from failsoft.models.runtime.signature import ModelOutput
from failsoft.schemas import wire
from failsoft.schemas.config import size
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features import Columns

GRACE = 0.04
"""Seconds that a process has to stop a call by itself: an operator is mostly over in microseconds. A killed process
costs a fork and its warm caches, one that stops costs nothing, and the caller must be back within 100 ms."""


DEAF = Death("timeout", "its process did not stop at its deadline, and was killed")
"""Of a process that is inside one operator."""


def _nothing(death: Death) -> None:
    """Nobody wants to know."""


class Isolated:
    """One version of a model, loaded by processes of its own. ``run`` may be called from several threads at once."""

    def __init__(
        self,
        artifact: Artifact,
        card: ModelCard,
        on_death: Callable[[Death], None] = _nothing,
        clock: Clock = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Starts to load; ``warm`` waits for it. Another thread calls ``on_death`` for each process that died."""
        self.artifact = artifact
        self.card = card
        self.key = artifact.key
        self.model = artifact.model
        self.version = artifact.version
        self.sha256 = artifact.sha256
        self._specs = card.specs
        self._clock = clock
        section = card.model
        self._replicas = Replicas(_order(artifact, card), section.replicas, section.memory, on_death, clock, draw)

    def warm(self) -> None:
        """Until the model is loaded and warmed, in its process. Raises Unloadable; nothing is left running then."""
        try:
            self._replicas.wait_loaded()
        except BaseException:
            self._replicas.close(0)
            raise

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        """As ``Session.run``, and besides: CRASHED when the process died of it, UNAVAILABLE when none was up or free.

        Comes back within 100 ms of ``cancel.set``, whatever the model does.
        """
        if columns.specs != self._specs:
            raise ValueError(f"{self.key} wants the columns of its card, and got {[s.name for s in columns.specs]}")
        stop = _Stop()
        if cancel is not None and not cancel.begin(stop):
            return late(self.key, self.card)
        try:
            about, blocks = codec.send_columns(columns)
            while True:
                taken = self._replicas.take(cancel)
                if isinstance(taken, Failure):
                    return taken
                answered = False
                try:
                    stop.aim((taken, taken.calls + 1))
                    if cancel is not None and cancel.expired:
                        return late(self.key, self.card)
                    number = taken.send(about, blocks)
                    answer = self._answer(taken, number, columns.size, cancel)
                    answered = isinstance(answer, ModelOutput)
                    return answer
                except ChannelClosed:  # it died before, not of this batch: another takes it
                    self._replicas.death(taken)
                finally:
                    stop.aim(None)
                    self._replicas.give_back(taken, answered)
        finally:
            if cancel is not None:
                cancel.end(stop)

    def close(self) -> None:
        """Ends the processes; runs under way end first, bounded by the deadline."""
        self._replicas.close(self.card.model.deadline + 1)

    def _answer(self, replica: Replica, number: int, n: int, cancel: Cancel | None) -> ModelOutput | Failure:
        """Raises ChannelClosed if the process died of something else, before it took the call."""
        kill_at: float | None = None
        try:
            while (reply := replica.channel.receive()) is None:
                if cancel is None or not cancel.expired:
                    continue
                now = self._clock()
                kill_at = now + GRACE - TICK if kill_at is None else kill_at
                if now >= kill_at:
                    self._replicas.kill(replica, DEAF)
                    return late(self.key, self.card)
            if reply.get("run") != number:
                raise Damaged(f"an answer to call {reply.get('run')} where {number} was made")
            told, *blocks = replica.segment.read(reply["blocks"])
            answer = codec.answer(wire.loads(bytes(told), MOST), blocks, n)
        except ChannelClosed:
            death = self._replicas.death(replica)
            if replica.segment.marked < number:
                raise  # it died before it had begun
            if cancel is not None and cancel.expired:
                return late(self.key, self.card)
            kind = Kind.UNAVAILABLE if death.why == "unloaded" else Kind.CRASHED
            return Failure(kind, f"{self.key}: {death.message}")
        except (Damaged, KeyError, TypeError, ValueError) as error:
            # No session says such a thing, so native code wrote where it should not have: a crash by luck only later,
            # and its end all the same. It counts as one, so that a record which does this is not tried for ever.
            death = Death("crashed", f"its process was killed, since it is out of its mind: {error}")
            self._replicas.kill(replica, death)
            return Failure(Kind.CRASHED, f"{self.key}: {death.message}")
        if cancel is not None and cancel.expired:
            return late(self.key, self.card)
        memory = self.card.model.memory
        if memory is not None and isinstance(answer, Failure) and out_of_memory(answer.message):
            return Failure(answer.kind, f"over its memory limit of {size.text(memory)}: {answer.message}")
        return answer


class _Stop:
    """What a Cancel ends: the call that is under way in a process, by its number."""

    __slots__ = ("_call", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()  # a pipe that is closed may not be written to: its number may be another file's
        self._call: tuple[Replica, int] | None = None

    def aim(self, call: tuple[Replica, int] | None) -> None:
        with self._lock:
            self._call = call

    @property
    def terminate(self) -> bool:
        return False

    @terminate.setter
    def terminate(self, _: bool) -> None:
        with self._lock:
            if self._call is not None:
                replica, number = self._call
                replica.end_call(number)


def _order(artifact: Artifact, card: ModelCard) -> About:
    """What a process needs to know to load the model: of its card, what a Session reads."""
    features = [f.model_dump(mode="json", include={"name", "type", "categories", "unseen"}) for f in card.features]
    return {
        "model": artifact.model,
        "version": artifact.version,
        "path": str(artifact.path.absolute()),
        "sha256": artifact.sha256,
        "memory": card.model.memory,
        "card": {
            "model": {"name": card.name, "deadline": f"{card.model.deadline * 1000:f}ms"},
            "output": card.output.model_dump(mode="json"),
            "features": features,
        },
    }
