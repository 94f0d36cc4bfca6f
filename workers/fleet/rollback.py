"""Automatic rollbacks: the owner carries out what models/rollout decides."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from failsoft.models.breaker.rules import BreakerState
from failsoft.models.rollout import rollout
from failsoft.schemas.fleet.breaker import Alert, BreakerRow
from failsoft.schemas.fleet.rollout import Direction, Order, RolloutRow
from failsoft.schemas.model_version import ModelVersion
from failsoft.workers.fleet.owner import Owner

log = structlog.get_logger("failsoft.fleet")

WHO = "failsoft"
"""The name in ``who`` of an order for an automatic rollback."""


class Rollbacks:
    """Considers a rollback once for each failed half-open period. Orders it when an older version passes its checks.

    breaker, rollout_of: read the fleet's breaker row of a key and rollout row of a model.
    alert, order: send the alert or the order that was decided.
    """

    def __init__(
        self,
        owner: Owner,
        breaker: Callable[[str], BreakerRow | None],
        rollout_of: Callable[[str], RolloutRow | None],
        alert: Callable[[Alert], Awaitable[None]],
        order: Callable[[Order], Awaitable[None]],
    ) -> None:
        self._owner, self._breaker, self._rollout_of = owner, breaker, rollout_of
        self._alert, self._order = alert, order
        self._considered: dict[str, int] = {}  # by key: the failed half-open periods when last considered
        self._running: set[asyncio.Task[None]] = set()

    def cancel(self) -> None:
        """Cancels rollbacks in progress; the next owner considers them again."""
        for task in self._running:
            task.cancel()

    def forget(self, key: str) -> None:
        """Considers this version again at the next message about its breaker."""
        self._considered.pop(key, None)

    async def consider(self, breaker: BreakerRow) -> None:
        """Starts a rollback from the breaker's version if enough half-open periods failed, or alerts why not."""
        model = ModelVersion.of_key(breaker.key).model
        if model not in self._owner.rollbacks:
            return  # a dependency: it has no other version
        if self._considered.get(breaker.key) == breaker.reopenings:
            return
        now_ms = self._owner.now_ms()
        decision = rollout.verdict(self._rollout_of(model), breaker, self._owner.rollbacks[model], now_ms)
        if decision is None:
            self.forget(breaker.key)
            return
        self._considered[breaker.key] = breaker.reopenings
        if isinstance(decision, rollout.RollbackBlocked):
            await self._refuse(breaker.key, decision.why)
            return
        # In a task of its own: checking a version takes a second or more, and reports must not wait for it.
        task = asyncio.get_running_loop().create_task(self._roll_back(breaker.key, decision, now_ms))
        self._running.add(task)
        task.add_done_callback(lambda task: self._on_end(breaker.key, task))

    def _on_end(self, key: str, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a rollback failed before its order was sent", key=key, error=repr(error))
            self.forget(key)  # the next message about this breaker starts it again

    async def _roll_back(self, key: str, back: rollout.Rollback, decided_ms: int) -> None:
        """Orders a rollback to the first candidate that passes its checks. The order is folded like any other."""
        failing = ModelVersion.of_key(key)
        refused = []
        for candidate in back.candidates:
            target = str(ModelVersion(failing.model, candidate))
            row = self._breaker(target)
            if row is not None and BreakerState(row.state) is BreakerState.FORCED_OPEN:
                refused.append(f"{target}: its breaker is forced open")
                continue
            why = await self._owner.prove(failing.model, candidate)
            if why is None:
                passed = f"{back.why}; {target} passed its checks"
                await self._order(Order(target, Direction.ROLLBACK, WHO, passed, decided_ms, failing.version))
                return
            refused.append(f"{target}: {why}")
        await self._refuse(key, f"{back.why}, but no earlier version passes its checks: {'; '.join(refused)}")

    async def _refuse(self, key: str, why: str) -> None:
        version = str(ModelVersion.of_key(key).version)
        log.warning("rollback refused", key=key, why=why)
        await self._alert(Alert("rollback_refused", key, self._owner.now_ms(), version, version, why[:2_000], None))
