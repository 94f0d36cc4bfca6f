"""The owner of the tables: what it needs, and what a record of `<name>.outcomes` says to it."""

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
    """What whoever owns the tables needs. ``policies`` and ``rollbacks`` have one for each model, ``wall`` is epoch
    seconds, ``prove`` says why a version of a model may not be served now (None: it may), and ``changed`` is told of
    each move of a model to another version.
    """

    policies: Mapping[str, BreakerPolicy]
    rollbacks: Mapping[str, rollout.RollbackPolicy]
    wall: Callable[[], float]
    draw: Callable[[], float]
    prove: Callable[[str, int], Awaitable[str | None]]
    changed: Callable[[str, Change], None]

    def messages(self, raw: bytes | None, keys: set[str]) -> list[Message]:
        """What a record of ``<name>.outcomes`` says, a command once for each key that it means; ``keys`` have rows."""
        given = wire.loads(raw, 65_536)
        given = given if isinstance(given, dict) else {}
        if "order" in given:
            order = Order.parse(raw)
            return [] if self.model(order.target) is None else [order]
        if "serving" in given:
            heartbeat = Heartbeat.parse(raw)
            return [heartbeat] if heartbeat.model in self.rollbacks else []
        if "action" not in given:
            report = Report.parse(raw)
            return [report] if self.policy(report.key) else []
        command = Command.parse(raw)
        named = {command.target} if self._names_version(command.target) else set()
        return [
            Command(key, command.action, command.who, command.why, command.at_ms)
            for key in sorted(targets(command.target, keys | named))
        ]

    def _names_version(self, target: str) -> bool:
        """Would a row of this key be readable? A word for a version would make one that nobody ever reads."""
        return ModelVersion.parse(target) is not None and self.policy(target) is not None

    def policy(self, key: str) -> BreakerPolicy | None:
        """That of a key's model; None for a model that this pipeline does not have (any more)."""
        return self.policies.get(model_of(key) or "")

    def model(self, target: str) -> str | None:
        """The model that an order's target names, with or without a version; None for none of this pipeline's."""
        return next((m for m in (target, model_of(target)) if m in self.rollbacks), None)

    def now_ms(self) -> int:
        return int(self.wall() * 1000)
