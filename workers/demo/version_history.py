"""The fleet's versions as the demo reads them from their table's changelog, and what must add up of a bad one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from failsoft.schemas.fleet.breaker import Alert
from failsoft.schemas.fleet.rollout import Change, RolloutRow, Trigger
from failsoft.schemas.model_version import model_of
from failsoft.schemas.record import Record
from failsoft.workers.demo.summary import Ledger, Sum, where


@dataclass(slots=True)
class VersionHistory:
    """The rows of the table ``rollouts`` by model, as they are now."""

    rows: dict[str, RolloutRow] = field(default_factory=dict)

    def fold(self, record: Record) -> None:
        """One more record of the changelog. Raises Malformed for one that no owner wrote."""
        if record.value is not None:
            row = RolloutRow.parse(record.value)
            self.rows[row.model] = row

    def active(self, model: str) -> int | None:
        """The version that the fleet wants; None as long as nothing was told of it."""
        return self.rows[model].active if model in self.rows else None

    def serving(self, model: str, worker: str) -> int | None:
        """The version that a worker said last that it serves."""
        status = self.rows[model].workers.get(worker) if model in self.rows else None
        return None if status is None else status.version

    def of(self, model: str) -> list[Change]:
        """Its moves from one version to another, the oldest first; the first version is none."""
        row = self.rows.get(model)
        return [] if row is None else [c for c in row.history if c.trigger is not Trigger.FIRST]


def describe(model: str, change: Change) -> str:
    """A move in a line."""
    return f"{model}: version {change.from_} → {change.to} ({change.trigger} by {change.who}: {change.why})"


def undone(
    model: str, bad: int, good: int, moves: VersionHistory, alerts: Iterable[Record], found: Ledger
) -> list[Sum]:
    """A version ``bad`` that was promoted and that the fleet left for ``good`` by itself, and its events."""
    history = moves.of(model)
    promoted = sum(c.trigger is Trigger.PROMOTE and (c.from_, c.to) == (good, bad) for c in history)
    back = sum(c.trigger is Trigger.AUTOMATIC and (c.from_, c.to) == (bad, good) for c in history)
    said = [Alert.parse(record.value) for record in alerts]
    # An owner that dies may leave its successor to say the last one again, with the time of its own.
    announced = {(a.name, a.from_, a.to) for a in said if model_of(a.key) == model}
    degraded = {where(k.attempt) for k in found.retries if k.attempt.number == 0 and k.attempt.version == bad}
    last = [a for place in degraded for a in found.answers.get(place, []) if a.revision == 1]
    got_out = sum(a.version == bad and a.model == model for answers in found.answers.values() for a in answers)
    return [
        Sum("versions promoted", promoted, {"rolled back by itself": back}, "a bad version does not stay", least=1),
        Sum(
            "moves of versions",
            len(history),
            {
                "promotion announced": sum(name == "promotion" for name, _, _ in announced),
                "rollback announced": sum(name == "rollback" for name, _, _ in announced),
            },
            "each move raised an alert",
        ),
        Sum(
            f"provisional for {model}@{bad}",
            len(degraded),
            {
                f"corrected by {model}@{good}": sum(not a.degraded and a.version == good for a in last),
                "confirmed": sum(a.degraded for a in last),
            },
            "what it could not answer, the version before did",
            least=1,
        ),
        Sum("", 0, {f"answers of {model}@{bad}": got_out}, "nothing that a bad version said got out"),
    ]
