"""Reads along while the soak runs: when each answer could be read, and how many have their last word."""

from __future__ import annotations

import json
import threading
import time
from array import array
from math import inf

from tests.integration.reader import Place
from tests.integration.verifier import NEVER_ANSWERED, Settlement, origin_of


class Watch:
    """A thread that owns the settlement's reader until ``stop``; ``arrived`` is parallel to the scored records."""

    def __init__(self, settlement: Settlement) -> None:
        self._settlement = settlement
        self._seen = {settlement.scored: 0, settlement.dead: 0}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.arrived = array("d")
        self._final: set[Place] = set()  # places and not a number: a doubled answer must not pass for another's
        self._ends: dict[tuple[str, int], int] = {}
        self.settled = 0
        self.error: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The reader is the caller's again. Raises what reading came to."""
        self._over.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    @property
    def published(self) -> int:
        """Events on the input topics, as far as read."""
        return sum(len(self._settlement.reader.records[topic]) for topic in self._settlement.inputs)

    @property
    def final(self) -> int:
        """Events that have their last word."""
        return len(self._final)

    def only_these(self) -> int:
        """From now on ``settled`` counts the last words of the events read so far, of which this is the number."""
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
            if b'"final":true' in (record.value or b""):
                origin = json.loads(record.value or b"")["origin"]
                self._end((origin["topic"], origin["partition"], origin["offset"]))
        for record in dead[self._seen[s.dead] :]:
            if record.header("failsoft-error-kind") in NEVER_ANSWERED:
                self._end(origin_of(record))
        self._seen = {s.scored: len(scored), s.dead: len(dead)}
        return self._over.is_set()
