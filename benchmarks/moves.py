"""What three workers and their owner said of one breaker: the moves in the workers' logs, and the rows in the table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson
from confluent_kafka import Consumer, KafkaException, TopicPartition

from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.fleet.breaker import BreakerRow

READ_WITHIN = 10.0
"""Seconds for the table's changelog, a few hundred rows."""


@dataclass(frozen=True, slots=True)
class Move:
    """A worker's breaker moved, at ``at`` (epoch seconds). ``generation`` is the row's, when the fleet moved it."""

    at: float
    to: BreakerState
    generation: int
    by_fleet: bool


class Said:
    """A worker's log, read on as it grows."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self._key = path, key
        self.moves: list[Move] = []
        self.lanes = 0
        self.reads_table = False
        self._offset = 0

    @property
    def state(self) -> BreakerState:
        """What the worker obeys, by its last move."""
        return self.moves[-1].to if self.moves else BreakerState.CLOSED

    def look(self) -> None:
        """Takes in what was written since the last look."""
        with self.path.open("rb") as log:
            log.seek(self._offset)
            for line in log:
                if not line.endswith(b"\n"):
                    return  # it is being written
                self._offset += len(line)
                if line.startswith(b"{"):
                    self._hear(orjson.loads(line))

    def _hear(self, said: dict[str, str | int]) -> None:
        event = said.get("event")
        if event == "breaker moved" and f"{said['model']}@{said['version']}" == self._key:
            at = datetime.fromisoformat(str(said["timestamp"])).timestamp()
            by_fleet = said["by"] == "the fleet"
            self.moves.append(Move(at, BreakerState(str(said["to"])), int(said["generation"]), by_fleet))
        elif event == "lane open":
            self.lanes += 1
        elif event == "the fleet's breakers are read":
            self.reads_table = True


@dataclass(frozen=True, slots=True)
class Opening:
    """One round: a closed breaker opened for the fleet. Epoch seconds; ``trips`` are workers' own, in order.

    ``decided`` is when the owner folded the report that opened it, ``obeyed`` when the last worker had the row, and
    ``quiet`` when the last one stopped asking the model, by its own breaker or the fleet's.
    """

    trips: tuple[float, ...]
    decided: float
    obeyed: float
    quiet: float

    @property
    def begin(self) -> float:
        """The first trip; or the owner's decision, when reports of several workers sufficed before one tripped."""
        return min([*self.trips, self.decided])


def openings(workers: list[Said], rows: list[BreakerRow]) -> list[Opening]:
    """Each time that the fleet's breaker went from closed to open. Raises RuntimeError for one that somebody missed."""
    found, closed = [], 0.0
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and before.state == BreakerState.CLOSED and row.state == BreakerState.OPEN:
            found.append(_opening(workers, row, closed))
        if row.state == BreakerState.CLOSED and before is not None and before.state != BreakerState.CLOSED:
            closed = row.since_ms / 1000
    return found


def _opening(workers: list[Said], row: BreakerRow, closed: float) -> Opening:
    trips, obeyed, quiet = [], [], []
    for worker in workers:
        heard = [m.at for m in worker.moves if m.by_fleet and m.generation == row.generation]
        if not heard:
            raise RuntimeError(f"{worker.path.name} did not obey generation {row.generation}")
        own = [m.at for m in worker.moves if not m.by_fleet and m.to is BreakerState.OPEN and closed < m.at < heard[0]]
        trips += own[:1]
        obeyed.append(heard[0])
        quiet.append(min([*own, *heard]))
    return Opening(tuple(sorted(trips)), row.since_ms / 1000, max(obeyed), max(quiet))


def rows(bootstrap: str, changelog: str, key: str) -> list[BreakerRow]:
    """Each row of ``key`` that was written, in order. Raises KafkaException."""
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "benchmarks.rows", "enable.auto.commit": False})
    found: list[BreakerRow] = []
    try:
        _, end = reader.get_watermark_offsets(TopicPartition(changelog, 0), timeout=READ_WITHIN)
        reader.assign([TopicPartition(changelog, 0, 0)])
        after = 0
        while after < end:
            message = reader.poll(READ_WITHIN)
            if message is None or message.error() is not None:
                raise KafkaException(f"{changelog}: read up to {after} of {end}: {message and message.error()}")
            after = message.offset() + 1
            row = BreakerRow.parse(message.value())
            if row.key == key:
                found.append(row)
    finally:
        reader.close()
    return found
