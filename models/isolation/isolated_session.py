"""Owns ``Isolated``: runs a model in separate processes, with the same interface as ``Session``.

``run`` sends a batch through shared memory and waits for the answer. A native crash ends the process and fails the
batch. A cancelled run is first stopped inside the process; if it does not stop, the process is killed and another is
forked at once.

``memory`` limits each process with RLIMIT_DATA, on Linux only. The limit covers the interpreter and ONNX Runtime (about
125 MB), the model, and all that a run allocates. It does not cover shared memory (batches in transit) and code mapped
from files. An allocation beyond the limit fails. ONNX Runtime mostly turns that into an error of the run, and the
process survives. RLIMIT_AS is not used: it counts reserved addresses that are never used, of which glibc makes 64 MB
per thread. Watching the resident set would be too late: a single operator fills memory faster than any poll.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.repository import Artifact
from failsoft.models.isolation import codec
from failsoft.models.isolation.codec import Damaged, JsonObject
from failsoft.models.isolation.forkserver import LARGEST_HEADER
from failsoft.models.isolation.pool import Replicas
from failsoft.models.isolation.replica import TICK, Clock, Death, Replica
from failsoft.models.isolation.transport import ChannelClosed
from failsoft.models.runtime.memory import out_of_memory
from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.runtime.run_times import RunTimes
from failsoft.models.runtime.session import Cancel, late
from failsoft.schemas import wire
from failsoft.schemas.config import size
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns

GRACE = 0.04
"""Seconds that a process has to stop a cancelled call by itself; most operators end within microseconds. A killed
process costs a fork and its warm caches, a process that stops by itself costs nothing. The caller must be back within
100 ms."""


DID_NOT_STOP = Death("timeout", "its process did not stop at its deadline, and was killed")
"""The death of a process that was killed because it did not stop: it was inside one operator."""


def _nothing(death: Death) -> None:
    """The default for ``on_death``: ignores the death."""


class Isolated:
    """One version of a model, loaded in its own processes. ``run`` may be called from several threads at once.

    Attributes:
        times: how long its runs take; None before ``warm``, and if made-up rows fail.
    """

    def __init__(
        self,
        artifact: Artifact,
        card: ModelCard,
        on_death: Callable[[Death], None] = _nothing,
        clock: Clock = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Starts to load the model; ``warm`` waits for it. ``on_death`` is called on another thread, once per death."""
        self.artifact = artifact
        self.card = card
        self.key = artifact.key
        self.model = artifact.model
        self.version = artifact.version
        self.sha256 = artifact.sha256
        self.dtypes: Mapping[str, str] = {}
        self._specs = card.specs
        self._clock = clock
        self.times: RunTimes | None = None
        section = card.model
        self._replicas = Replicas(_order(artifact, card), section.replicas, section.memory, on_death, clock, draw)

    def warm(self) -> None:
        """Waits until a process has loaded and warmed the model; from then on ``dtypes`` and ``times`` are those of its
        session.

        Raises Unloadable; no process is left running then.
        """
        try:
            self.dtypes, self.times = self._replicas.wait_loaded()
        except BaseException:
            self._replicas.close(0)
            raise

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        """As ``Session.run``, with two more failures: CRASHED if the process died during the call, UNAVAILABLE if no
        process was up or free.

        Returns within 100 ms of ``cancel.set``, even if the model does not stop.
        """
        if columns.specs != self._specs:
            raise ValueError(f"{self.key} needs the columns of its card, and got {[s.name for s in columns.specs]}")
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
                except ChannelClosed:  # the process died before it took this batch: try the next one
                    self._replicas.death(taken)
                finally:
                    stop.aim(None)
                    self._replicas.give_back(taken, answered)
        finally:
            if cancel is not None:
                cancel.end(stop)

    def close(self) -> None:
        """Waits for the runs under way, at most for the deadline and one second, and ends the processes."""
        self._replicas.close(self.card.model.deadline + 1)

    def _answer(self, replica: Replica, number: int, n: int, cancel: Cancel | None) -> ModelOutput | Failure:
        """Waits for the answer to call ``number``. Raises ChannelClosed if the process died before it took the call."""
        kill_at: float | None = None
        try:
            while (reply := replica.channel.receive()) is None:
                if cancel is None or not cancel.expired:
                    continue
                now = self._clock()
                kill_at = now + GRACE - TICK if kill_at is None else kill_at
                if now >= kill_at:
                    self._replicas.kill(replica, DID_NOT_STOP)
                    return late(self.key, self.card)
            if reply.get("run") != number:
                raise Damaged(f"an answer to call {reply.get('run')} instead of call {number}")
            header, *blocks = replica.segment.read(reply["blocks"])
            answer = codec.answer(wire.loads(bytes(header), LARGEST_HEADER), blocks, n)
        except ChannelClosed:
            death = self._replicas.death(replica)
            if replica.segment.marked < number:
                raise  # the process had not begun this call
            if cancel is not None and cancel.expired:
                return late(self.key, self.card)
            kind = Kind.UNAVAILABLE if death.why == "unloaded" else Kind.CRASHED
            return Failure(kind, f"{self.key}: {death.message}")
        except (Damaged, KeyError, TypeError, ValueError) as error:
            # A session never sends such a reply, so native code has overwritten the process's memory. It counts as a
            # crash, so that a record which causes it becomes a poison record and is not retried for ever.
            death = Death("crashed", f"its process was killed, because it sent an invalid reply: {error}")
            self._replicas.kill(replica, death)
            return Failure(Kind.CRASHED, f"{self.key}: {death.message}")
        if cancel is not None and cancel.expired:
            return late(self.key, self.card)
        memory = self.card.model.memory
        if memory is not None and isinstance(answer, Failure) and out_of_memory(answer.message):
            return Failure(answer.kind, f"over its memory limit of {size.text(memory)}: {answer.message}")
        return answer


class _Stop:
    """The ``Endable`` that a Cancel ends: the call under way in a replica, by its number."""

    __slots__ = ("_call", "_lock")

    def __init__(self) -> None:
        # Without the lock ``terminate`` could write to a closed pipe, whose number may already belong to another file.
        self._lock = threading.Lock()
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


_OF_SESSION = {
    *("name", "type", "categories", "unseen"),
    *("input", "dtype", "shape", "max_length", "truncate", "pad", "mask"),
}
"""The keys of a feature that a Session reads. How a missing one is imputed is the worker's part."""


def _order(artifact: Artifact, card: ModelCard) -> JsonObject:
    """The message that tells the forkserver what to load. Of the card it has only what a Session reads."""
    features = [f.model_dump(mode="json", include=_OF_SESSION, exclude_unset=True) for f in card.features]
    return {
        "model": artifact.model,
        "version": artifact.version,
        "path": str(artifact.path.absolute()),
        "sha256": artifact.sha256,
        "memory": card.model.memory,
        "card": {
            "model": {
                "name": card.name,
                "deadline": f"{card.model.deadline * 1000:f}ms",
                "max_batch": card.model.max_batch,
            },
            "output": card.output.model_dump(mode="json"),
            "features": features,
        },
    }
