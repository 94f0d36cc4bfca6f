"""The fleet's breakers as the demo reads them from their table's changelog: the rows, and how they moved. Pure."""

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
    """A change of a row's state: ``row`` is the one that brought it."""

    from_: BreakerState
    row: BreakerRow

    @property
    def to(self) -> BreakerState:
        return BreakerState(self.row.state)

    def __str__(self) -> str:
        r = self.row
        return f"{r.key}: {self.from_} → {self.to} (generation {r.generation}, by {r.changed_by}: {r.reason})"


@dataclass(slots=True)
class BreakerHistory:
    """The rows by ``model@version``, and every change of a state so far."""

    rows: dict[str, BreakerRow] = field(default_factory=dict)
    turns: list[StateChange] = field(default_factory=list)

    def fold(self, record: Record) -> None:
        """One more record of the changelog. Raises Malformed for one that no owner wrote."""
        if record.value is None:
            return
        row = BreakerRow.parse(record.value)
        before = self.state(row.key)
        self.rows[row.key] = row
        if before is not BreakerState(row.state):
            self.turns.append(StateChange(before, row))

    def state(self, key: str) -> BreakerState:
        """Closed, as long as nothing was told of it."""
        return BreakerState(self.rows[key].state) if key in self.rows else BreakerState.CLOSED

    def generation(self, key: str) -> int:
        """How often it has moved, and probes were lent."""
        return self.rows[key].generation if key in self.rows else 0

    def opened(self, key: str, *before: BreakerState) -> int:
        """How often it opened; out of the states ``before``, if there are any given."""
        return sum(
            t.row.key == key and t.to is BreakerState.OPEN and (not before or t.from_ in before) for t in self.turns
        )


def openings(key: str, fleet: BreakerHistory, alerts: Iterable[Record], opened: Mapping[str, int]) -> list[Sum]:
    """The outage, as the fleet and its workers met it. ``opened``: how often each worker says that its breaker did."""
    said = [a for record in alerts if (a := Alert.parse(record.value)).name == "breaker" and a.key == key]
    # An owner that dies may leave its successor to say the last one again: no two moves in a row are the same.
    announced = sum(to == BreakerState.OPEN for (_, to), _ in groupby(said, lambda a: (a.from_, a.to)))
    return [
        Sum(
            f"fleet's breaker of {key} opened",
            announced,
            {
                "by the workers' counts": fleet.opened(key, BreakerState.CLOSED),
                "by a probe in vain": fleet.opened(key, BreakerState.HALF_OPEN),
            },
            "its failures opened it, and each opening raised an alert",
            least=1,
        ),
        Sum("workers", len(opened), {"opened with it": sum(n > 0 for n in opened.values())}, "each worker obeyed"),
    ]
