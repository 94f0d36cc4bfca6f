"""The owner of the fleet's tables: its dependencies, and the parsing of records of `<name>.outcomes`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from failsoft.models.breaker.fleet import targets
from failsoft.models.breaker.rules import BreakerPolicy
from failsoft.models.rollout import rollout
from failsoft.schemas import wire
from failsoft.schemas.fleet.breaker import Command, Report
from failsoft.schemas.fleet.rollout import Change, Heartbeat, Order
from failsoft.schemas.model_version import ModelVersion, model_of

Message = Report | Command | Heartbeat | Order


@dataclass(frozen=True, slots=True)
class Owner:
    """The dependencies of the worker that owns the tables.

    Attributes:
        policies: the breaker policy of each model and of each dependency.
        rollbacks: the rollback policy of each model; its keys are the models of this pipeline.
        wall: the wall clock (epoch seconds).
        draw: a random number in [0, 1), for the jitter of waits.
        prove: checks a version of a model; returns why it may not serve now, or None if it may.
        changed: called with the model and the change when a model moves to another version.
    """

    policies: Mapping[str, BreakerPolicy]
    rollbacks: Mapping[str, rollout.RollbackPolicy]
    wall: Callable[[], float]
    draw: Callable[[], float]
    prove: Callable[[str, int], Awaitable[str | None]]
    changed: Callable[[str, Change], None]

    def messages(self, raw: bytes | None, keys: set[str]) -> list[Message]:
        """The messages in a record of ``<name>.outcomes``. Raises Malformed.

        A command gives one message for each key that it targets; ``keys`` are the known keys ``model@version``. A
        message about a model that this pipeline does not have gives none, and neither does a record without a value.
        """
        if raw is None:
            return []  # a worker has asked the broker for its time
        value = wire.loads(raw, 65_536)
        value = value if isinstance(value, dict) else {}
        if "order" in value:
            order = Order.parse(raw)
            return [] if self.model(order.target) is None else [order]
        if "serving" in value:
            heartbeat = Heartbeat.parse(raw)
            return [heartbeat] if heartbeat.model in self.rollbacks else []
        if "action" not in value:
            report = Report.parse(raw)
            return [report] if self.policy(report.key) else []
        command = Command.parse(raw)
        named = {command.target} if self._names_version(command.target) else set()
        return [
            Command(key, command.action, command.who, command.why, command.at_ms)
            for key in sorted(targets(command.target, keys | named))
        ]

    def _names_version(self, target: str) -> bool:
        """Is ``target`` a valid key of a model in this pipeline? A row under an invalid key could never be read."""
        return ModelVersion.parse(target) is not None and self.policy(target) is not None

    def policy(self, key: str) -> BreakerPolicy | None:
        """The breaker policy of the key's model; None for a model that this pipeline does not have."""
        return self.policies.get(model_of(key) or "")

    def model(self, target: str) -> str | None:
        """The model named by an order's target, with or without a version; None if this pipeline does not have it."""
        return next((m for m in (target, model_of(target)) if m in self.rollbacks), None)

    def now_ms(self) -> int:
        """The wall clock in milliseconds since the epoch."""
        return int(self.wall() * 1000)
