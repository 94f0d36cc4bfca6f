"""Transitions of one breaker: those in the workers' logs, and those in the rows of the breaker table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson
from confluent_kafka import Consumer, KafkaException, TopicPartition

from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.fleet.breaker import BreakerRow

READ_WITHIN = 10.0
"""Seconds to read the table's changelog of a few hundred rows."""


@dataclass(frozen=True, slots=True)
class Move:
    """A transition of a worker's breaker.

    Attributes:
        at: the time (epoch seconds).
        to: the new state.
        generation: the generation of the fleet's row, if the fleet caused the transition.
        by_fleet: whether the fleet caused it.
    """

    at: float
    to: BreakerState
    generation: int
    by_fleet: bool


class WorkerLog:
    """A worker's log, read on as it grows.

    Attributes:
        moves: the transitions so far.
        lanes: the number of lanes opened so far.
        reads_table: whether the worker has read the breaker table.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self._key = path, key
        self.moves: list[Move] = []
        self.lanes = 0
        self.reads_table = False
        self._offset = 0

    @property
    def state(self) -> BreakerState:
        """The state that the worker obeys, according to its last transition."""
        return self.moves[-1].to if self.moves else BreakerState.CLOSED

    def read(self) -> None:
        """Reads what was written since the last call."""
        with self.path.open("rb") as log:
            log.seek(self._offset)
            for line in log:
                if not line.endswith(b"\n"):
                    return  # an incomplete line that is still being written
                self._offset += len(line)
                if line.startswith(b"{"):
                    self._add(orjson.loads(line))

    def _add(self, line: dict[str, str | int]) -> None:
        event = line.get("event")
        if event == "breaker moved" and f"{line['model']}@{line['version']}" == self._key:
            at = datetime.fromisoformat(str(line["timestamp"])).timestamp()
            by_fleet = line["by"] == "the fleet"
            self.moves.append(Move(at, BreakerState(str(line["to"])), int(line["generation"]), by_fleet))
        elif event == "lane open":
            self.lanes += 1
        elif event == "the fleet's breakers are read":
            self.reads_table = True


@dataclass(frozen=True, slots=True)
class Opening:
    """One round: a closed breaker that opened for the fleet. All times are epoch seconds.

    Attributes:
        trips: when workers' local breakers tripped, in order.
        decided: when the owner folded the report that opened the breaker.
        obeyed: when the last worker had the row.
        quiet: when the last worker stopped calling the model, by its local breaker or the fleet's.
    """

    trips: tuple[float, ...]
    decided: float
    obeyed: float
    quiet: float

    @property
    def begin(self) -> float:
        """The first trip, or the owner's decision if reports of several workers sufficed before one of them tripped."""
        return min([*self.trips, self.decided])


def openings(workers: list[WorkerLog], rows: list[BreakerRow]) -> list[Opening]:
    """Each time the fleet breaker went from closed to open. Raises RuntimeError if a worker did not obey one."""
    found, closed = [], 0.0
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and before.state == BreakerState.CLOSED and row.state == BreakerState.OPEN:
            found.append(_opening(workers, row, closed))
        if row.state == BreakerState.CLOSED and before is not None and before.state != BreakerState.CLOSED:
            closed = row.since_ms / 1000
    return found


def _opening(workers: list[WorkerLog], row: BreakerRow, closed: float) -> Opening:
    trips, obeyed, quiet = [], [], []
    for worker in workers:
        obeyed_at = [m.at for m in worker.moves if m.by_fleet and m.generation == row.generation]
        if not obeyed_at:
            raise RuntimeError(f"{worker.path.name} did not obey generation {row.generation}")
        own = [
            m.at for m in worker.moves if not m.by_fleet and m.to is BreakerState.OPEN and closed < m.at < obeyed_at[0]
        ]
        trips += own[:1]
        obeyed.append(obeyed_at[0])
        quiet.append(min([*own, *obeyed_at]))
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
