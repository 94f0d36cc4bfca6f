"""The fleet's versions as read from their changelog, and the sums that a rolled-back version must leave. Pure."""

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
    """The current rows of the table ``rollouts`` by model."""

    rows: dict[str, RolloutRow] = field(default_factory=dict)

    def fold(self, record: Record) -> None:
        """Adds the next record of the changelog. Raises Malformed for a record that is not a rollout row."""
        if record.value is not None:
            row = RolloutRow.parse(record.value)
            self.rows[row.model] = row

    def active(self, model: str) -> int | None:
        """The active version of the model; None while there is no row."""
        return self.rows[model].active if model in self.rows else None

    def serving(self, model: str, worker: str) -> int | None:
        """The version that a worker serves, by its last heartbeat; None if unknown."""
        status = self.rows[model].workers.get(worker) if model in self.rows else None
        return None if status is None else status.version

    def of(self, model: str) -> list[Change]:
        """The changes of the model's active version, the oldest first, without the first version."""
        row = self.rows.get(model)
        return [] if row is None else [c for c in row.history if c.trigger is not Trigger.FIRST]


def describe(model: str, change: Change) -> str:
    """A change as one line of text."""
    return f"{model}: version {change.from_} → {change.to} ({change.trigger} by {change.who}: {change.why})"


def undone(model: str, bad: int, good: int, moves: VersionHistory, alerts: Iterable[Record], book: Ledger) -> list[Sum]:
    """The sums for a version ``bad`` that was promoted and then rolled back to ``good`` automatically."""
    history = moves.of(model)
    promoted = sum(c.trigger is Trigger.PROMOTE and (c.from_, c.to) == (good, bad) for c in history)
    back = sum(c.trigger is Trigger.AUTOMATIC and (c.from_, c.to) == (bad, good) for c in history)
    parsed = [Alert.parse(record.value) for record in alerts]
    # A new owner may repeat the last alert of a dead one, with another time. A set counts it once.
    announced = {(a.name, a.from_, a.to) for a in parsed if model_of(a.key) == model}
    degraded = {where(k.attempt) for k in book.retries if k.attempt.number == 0 and k.attempt.version == bad}
    last = [a for place in degraded for a in book.answers.get(place, []) if a.revision == 1]
    published = sum(a.version == bad and a.model == model for answers in book.answers.values() for a in answers)
    return [
        Sum("versions promoted", promoted, {"rolled back by itself": back}, "the bad version was rolled back", least=1),
        Sum(
            "moves of versions",
            len(history),
            {
                "promotion announced": sum(name == "promotion" for name, _, _ in announced),
                "rollback announced": sum(name == "rollback" for name, _, _ in announced),
            },
            "each change of version raised an alert",
        ),
        Sum(
            f"provisional for {model}@{bad}",
            len(degraded),
            {
                f"corrected by {model}@{good}": sum(not a.degraded and a.version == good for a in last),
                "confirmed": sum(a.degraded for a in last),
            },
            "the version before answered what it could not",
            least=1,
        ),
        Sum("", 0, {f"answers of {model}@{bad}": published}, "no score of the bad version was published"),
    ]
