"""Carries out the automatic rollbacks that models/rollout decides, for the owner of the tables."""

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
"""Who orders an automatic rollback."""


class Rollbacks:
    """Considers a rollback once for each half-open cycle that failed, and orders it after a version has proved itself.

    ``breaker`` and ``rollout_of`` read the fleet's rows. ``alert`` and ``order`` send what was decided.
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
        self._considered: dict[str, int] = {}  # by key: the failed cycles at which a rollback was considered last
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Is a rollback under way?"""
        return bool(self._under_way)

    def cancel(self) -> None:
        """End what is under way: the next owner considers it again."""
        for task in self._under_way:
            task.cancel()

    def forget(self, key: str) -> None:
        """Consider this version anew at its next failed cycle."""
        self._considered.pop(key, None)

    async def consider(self, breaker: BreakerRow) -> None:
        """Start a rollback from this version, or say why there is none, if its breaker's history asks for one."""
        model = ModelVersion.of_key(breaker.key).model
        if self._considered.get(breaker.key) == breaker.reopenings:
            return
        now_ms = self._owner.now_ms()
        found = rollout.verdict(self._rollout_of(model), breaker, self._owner.rollbacks[model], now_ms)
        if found is None:
            self.forget(breaker.key)
            return
        self._considered[breaker.key] = breaker.reopenings
        if isinstance(found, rollout.RollbackBlocked):
            await self._refuse(breaker.key, found.why)
            return
        # In a task of its own: the proof of a version takes a second or more, and reports must not wait.
        task = asyncio.get_running_loop().create_task(self._go_back(breaker.key, found, now_ms))
        self._under_way.add(task)
        task.add_done_callback(lambda task: self._ended(breaker.key, task))

    def _ended(self, key: str, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a rollback did not get as far as its order", key=key, error=repr(error))
            self.forget(key)  # the next message about this breaker brings it up again

    async def _go_back(self, key: str, back: rollout.Rollback, decided_ms: int) -> None:
        """Order the first candidate that proves itself. The order is folded like any other."""
        failing = ModelVersion.of_key(key)
        refused = []
        for candidate in back.candidates:
            target = str(ModelVersion(failing.model, candidate))
            row = self._breaker(target)
            if row is not None and BreakerState(row.state) is BreakerState.FORCED_OPEN:
                refused.append(f"{target}: its breaker is open by force")
                continue
            why = await self._owner.prove(failing.model, candidate)
            if why is None:
                passed = f"{back.why}; {target} proved itself"
                await self._order(Order(target, Direction.ROLLBACK, WHO, passed, decided_ms, failing.version))
                return
            refused.append(f"{target}: {why}")
        await self._refuse(key, f"{back.why}, but no version to go back to proves itself: {'; '.join(refused)}")

    async def _refuse(self, key: str, why: str) -> None:
        version = str(ModelVersion.of_key(key).version)
        log.warning("no rollback", key=key, why=why)
        await self._alert(Alert("rollback_refused", key, self._owner.now_ms(), version, version, why[:2_000], None))
