"""Reads the topics while the soak runs: when each answer could be read, and how many events are final."""

from __future__ import annotations

import threading
import time
from array import array
from math import inf

from tests.integration.reader import Place
from tests.integration.verifier import Settlement, is_final, never_answered, origin_of


class Watch:
    """A thread that uses the settlement's reader until ``stop``.

    Attributes:
        arrived: when each scored record was read (epoch seconds), in the order of the scored records.
        settled: the number of final events, limited to those of ``only_these`` once it was called.
        error: what reading raised, if anything.
    """

    def __init__(self, settlement: Settlement) -> None:
        self._settlement = settlement
        self._seen = {settlement.scored: 0, settlement.dead: 0}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.arrived = array("d")
        self._final: set[Place] = set()  # places, not a count: a doubled answer must not count as another event's
        self._ends: dict[tuple[str, int], int] = {}
        self.settled = 0
        self.error: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; the caller may use the reader again. Raises what reading raised."""
        self._over.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    @property
    def published(self) -> int:
        """The number of events on the input topics that were read so far."""
        return sum(len(self._settlement.reader.records[topic]) for topic in self._settlement.inputs)

    @property
    def final(self) -> int:
        """The number of final events."""
        return len(self._final)

    def only_these(self) -> int:
        """Limits ``settled`` from now on to the events read so far; returns their number."""
        ends: dict[tuple[str, int], int] = {}
        for topic in self._settlement.inputs:
            for record in self._settlement.reader.records[topic]:
                ends[topic, record.partition] = max(ends.get((topic, record.partition), 0), record.offset + 1)
        self._ends = ends
        return self.published

    def _end(self, place: Place) -> None:
        if place not in self._final:
            self._final.add(place)
            self.settled += place[2] < self._ends.get(place[:2], inf)

    def _run(self) -> None:
        try:
            self._settlement.reader.until(self._look, threading.TIMEOUT_MAX, "the soak's end")
        except BaseException as e:  # noqa: BLE001
            self.error = e

    def _look(self) -> bool:
        s, now = self._settlement, time.time()
        scored, dead = s.reader.records[s.scored], s.reader.records[s.dead]
        for record in scored[self._seen[s.scored] :]:
            self.arrived.append(now)
            if is_final(record):
                origin = record.answer()["origin"]
                self._end((origin["topic"], origin["partition"], origin["offset"]))
        for record in dead[self._seen[s.dead] :]:
            if never_answered(record):
                self._end(origin_of(record))
        self._seen = {s.scored: len(scored), s.dead: len(dead)}
        return self._over.is_set()
