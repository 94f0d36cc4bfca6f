"""The fleet's breakers as read from their changelog: the rows, their changes of state, and the sums to check. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.fleet.breaker import Alert, BreakerRow
from failsoft.schemas.record import Record
from failsoft.workers.demo.summary import Sum


@dataclass(frozen=True, slots=True)
class StateChange:
    """A change of a breaker's state.

    Attributes:
        from_: the state before.
        row: the row with the new state.
    """

    from_: BreakerState
    row: BreakerRow

    @property
    def to(self) -> BreakerState:
        """The new state."""
        return BreakerState(self.row.state)

    def __str__(self) -> str:
        r = self.row
        return f"{r.key}: {self.from_} → {self.to} (generation {r.generation}, by {r.changed_by}: {r.reason})"


@dataclass(slots=True)
class BreakerHistory:
    """The fleet's breakers over time.

    Attributes:
        rows: the latest row by ``model@version``.
        changes: all changes of state so far, the oldest first.
    """

    rows: dict[str, BreakerRow] = field(default_factory=dict)
    changes: list[StateChange] = field(default_factory=list)

    def fold(self, record: Record) -> None:
        """Adds the next record of the changelog. Raises Malformed for a record that is not a breaker row."""
        if record.value is None:
            return
        row = BreakerRow.parse(record.value)
        before = self.state(row.key)
        self.rows[row.key] = row
        if before is not BreakerState(row.state):
            self.changes.append(StateChange(before, row))

    def state(self, key: str) -> BreakerState:
        """The current state; closed while there is no row."""
        return BreakerState(self.rows[key].state) if key in self.rows else BreakerState.CLOSED

    def generation(self, key: str) -> int:
        """The row's generation: it grows with each change of state and each lease; 0 while there is no row."""
        return self.rows[key].generation if key in self.rows else 0

    def opened(self, key: str, *before: BreakerState) -> int:
        """How often it opened; if ``before`` is given, only from these states."""
        return sum(
            c.row.key == key and c.to is BreakerState.OPEN and (not before or c.from_ in before) for c in self.changes
        )


def openings(key: str, fleet: BreakerHistory, alerts: Iterable[Record], opened: Mapping[str, int]) -> list[Sum]:
    """The sums that an outage must leave: openings match alerts, and each worker opened.

    opened: how often the breaker opened at each worker, by the worker's metrics.
    """
    moves = [a for record in alerts if (a := Alert.parse(record.value)).name == "breaker" and a.key == key]
    # A new owner may repeat the last alert of a dead one. Two equal moves in a row are one: a state cannot repeat.
    announced = sum(to == BreakerState.OPEN for (_, to), _ in groupby(moves, lambda a: (a.from_, a.to)))
    return [
        Sum(
            f"fleet's breaker of {key} opened",
            announced,
            {
                "by the workers' counts": fleet.opened(key, BreakerState.CLOSED),
                "by a failed probe": fleet.opened(key, BreakerState.HALF_OPEN),
            },
            "its failures opened it, and each opening raised an alert",
            least=1,
        ),
        Sum("workers", len(opened), {"opened with it": sum(n > 0 for n in opened.values())}, "each worker obeyed"),
    ]
