"""The control plane: a Faust app whose one agent owns the tables of breakers and of rollouts.

Its input topic has one partition, so one worker of the fleet (the owner) folds and all workers read. It is a separate
app from the one that runs the lanes: when it fails, events are still scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import structlog

from failsoft.models.breaker.fleet import fold
from failsoft.models.breaker.rules import BreakerState
from failsoft.models.rollout import rollout
from failsoft.schemas import wire
from failsoft.schemas.fleet.breaker import Action, Alert, BreakerRow, Command, Report
from failsoft.schemas.fleet.rollout import Change, Heartbeat, Order, RolloutRow
from failsoft.schemas.model_version import ModelVersion
from failsoft.schemas.wire import Malformed
from failsoft.topics.names import Names
from failsoft.workers.client_timeouts import JOIN_MARGIN, ClientTimeouts
from failsoft.workers.fleet.faust_app import FleetApp, credentials, table_type
from failsoft.workers.fleet.owner import Owner
from failsoft.workers.fleet.rollback import WHO, Rollbacks
from failsoft.workers.identity import own_folder

log = structlog.get_logger("failsoft.fleet")

TableRow = TypeVar("TableRow", BreakerRow, RolloutRow)

HEARTBEAT_MS = 2_000
"""Milliseconds between two writes of a rollout row that only refresh heartbeats. Each row holds the whole fleet, and a
starting worker reads ten minutes of rows."""


FAUST_REBALANCE, FAUST_REQUEST = 60.0, 90.0
"""Faust's own timeouts in seconds, unless the pipeline's are longer."""

DEFAULT_TIMEOUTS = ClientTimeouts()


class ControlPlane:
    """A Faust app and its tables.

    connection: the connection settings of aiokafka's clients (from ``Settings``).
    keys: returns the keys ``model@version`` of the versions that this worker has loaded.
    timeouts: those of the pipeline's clients: a dead owner is replaced after a session, as a lane's is.
    """

    def __init__(
        self,
        names: Names,
        connection: Mapping[str, Any],
        worker: str,
        owner: Owner,
        keys: Callable[[], set[str]],
        timeouts: ClientTimeouts = DEFAULT_TIMEOUTS,
    ) -> None:
        changelogs = {"breakers": names.breakers_changelog, "rollouts": names.rollouts_changelog}
        self.app = FleetApp(
            names.control_group,
            broker=f"kafka://{connection['bootstrap_servers'].replace(',', ';')}",
            broker_credentials=credentials(connection),
            autodiscover=False,
            web_enabled=False,
            worker_redirect_stdouts=False,
            broker_client_id=worker,
            broker_session_timeout=timeouts.session,
            broker_heartbeat_interval=timeouts.heartbeat,
            broker_rebalance_timeout=max(FAUST_REBALANCE, timeouts.rebalance),
            # Faust has one timeout for all requests, and a join waits for the whole rebalance.
            broker_request_timeout=max(FAUST_REQUEST, timeouts.join, timeouts.session + JOIN_MARGIN),
            consumer_auto_offset_reset="earliest",
            # Faust makes a folder for tables on disk. Our tables are in memory, and their changelogs in Kafka.
            datadir=own_folder() / "faust",
            # Faust elects a leader for ``on_leader`` tasks with a topic of its own. We have no such tasks. The topic
            # would have one replica, and ``topics apply`` would not know it.
            topic_disable_leader=True,
            # ``topics apply`` has made the topics. Faust would ask for the right to create them at every start, though
            # they exist.
            topic_allow_declare=False,
            GlobalTable=table_type(changelogs),
        )
        self._owner, self._keys = owner, keys
        self.on_row: Callable[[], None] = lambda: None  # called when a table has changed
        self._ready = False
        self._generation = -1
        self._own_rows: dict[tuple[str, str], tuple[BreakerRow | RolloutRow, dict[str, Any]]] = {}
        self._rollback = Rollbacks(owner, self._breaker, self._rollout, self._alert, self._send_order)
        self._published: dict[str, tuple[RolloutRow, int]] = {}  # by model: the row last written, and when (ms)
        self._outcomes = self._topic(names.outcomes)
        self._control = self._topic(names.control)
        self._alerts = self._topic(names.alerts)
        self._breakers, self._rollouts = self._table("breakers"), self._table("rollouts")
        self.app.agent(self._outcomes, name="breakers.fold", concurrency=1)(self._fold)
        self.app.agent(self._control, name="breakers.relay", concurrency=1)(self._relay)

    def _topic(self, name: str) -> Any:
        return self.app.topic(
            name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", partitions=1
        )

    def _table(self, name: str) -> Any:
        # Without these two settings other workers see no change until the next rebalance.
        return self.app.GlobalTable(name, partitions=1, recovery_buffer_size=1, on_changelog_event=self._read)

    async def end(self) -> None:
        """Stops the app. Another worker then becomes the owner."""
        self._rollback.cancel()
        await self.app.stop()

    @property
    def ready(self) -> bool:
        """Have the tables been read to their ends once? A rebalance reads them again, but keeps the rows meanwhile."""
        self._ready = self._ready or self.app.tables.recovery.completed.is_set()
        return self._ready

    def breakers(self) -> Mapping[str, dict[str, Any]]:
        """The current breaker rows by key. A write replaces a row's dict and never changes it in place."""
        return self._rows(self._breakers)

    def rollouts(self) -> Mapping[str, dict[str, Any]]:
        """The current rollout rows by model, also replaced and never changed in place."""
        return self._rows(self._rollouts)

    def _rows(self, table: Any) -> Mapping[str, dict[str, Any]]:
        return {**table, **{key: value for (name, key), (_, value) in self._written().items() if name == table.name}}

    def _written(self) -> dict[tuple[str, str], tuple[BreakerRow | RolloutRow, dict[str, Any]]]:
        """The rows that this owner wrote since the group's last rebalance; before it, the owner may have been another.

        The owner cannot rely on the table alone. Faust reads each write back tens of milliseconds later and puts it
        over newer writes, so reports and orders from that time were lost.
        """
        if self._generation != self.app.consumer_generation_id:
            self._generation, self._own_rows = self.app.consumer_generation_id, {}
        return self._own_rows

    async def _read(self, event: Any) -> None:
        """Called by Faust for each row that it reads; Faust applies the row before it awaits anything."""
        self.on_row()

    async def _relay(self, stream: Any) -> None:
        """Copies commands and orders to the topic of reports, so that a single agent writes the tables."""
        async for event in stream.events():
            try:
                value = wire.loads(event.value, 65_536)
                is_order = isinstance(value, dict) and "order" in value
                target = Order.parse(event.value).target if is_order else Command.parse(event.value).target
            except Malformed as e:
                log.warning("a malformed command was skipped", error=str(e))
                continue
            await self._send(self._outcomes, target, event.value)

    async def _fold(self, stream: Any) -> None:
        async for event in stream.events():
            try:
                messages = self._owner.messages(event.value, self._keys() | {str(k) for k in self._breakers})
            except Malformed as e:
                log.warning("a malformed report was skipped", error=str(e))
                continue
            for message in messages:
                if isinstance(message, (Report, Command)):
                    await self._fold_breaker(message)
                else:
                    await self._fold_rollout(message)

    async def _fold_breaker(self, message: Report | Command) -> None:
        key = message.key if isinstance(message, Report) else message.target
        policy = self._owner.policy(key)
        if policy is None:
            return
        row = self._breaker(key)
        folded = fold(row, message, policy, self._owner.now_ms(), self._owner.draw())
        await self._alert(*folded.alerts)
        if folded.row is None:
            return
        if folded.row is not row:
            self._write(self._breakers, key, folded.row)
        await self._rollback.consider(folded.row)

    async def _fold_rollout(self, message: Heartbeat | Order) -> None:
        model = message.model if isinstance(message, Heartbeat) else self._owner.model(message.target)
        if model is None:
            return
        row = self._rollout(model)
        now_ms = self._owner.now_ms()
        folded = rollout.fold(row, message, self._owner.rollbacks[model], now_ms)
        await self._alert(*folded.alerts)
        if folded.change is not None:
            await self._reset_breaker(str(ModelVersion(model, folded.change.to)), folded.change)
        if folded.row is not None and folded.row is not row:
            self._publish_version(model, folded.row, now_ms)
        if folded.change is not None:
            self._owner.changed(model, folded.change)

    async def _reset_breaker(self, key: str, change: Change) -> None:
        """Resets the breaker of a version that becomes active: it is called at once and judged by new calls only.

        Otherwise failures from its earlier service would keep it open and roll it back without a new call. A state
        that an operator ordered stays. Runs before the rollout row is written: if the owner dies in between, the next
        owner folds the order again.
        """
        self._rollback.forget(key)
        row = self._breaker(key)
        if row is not None and BreakerState(row.state) in (BreakerState.OPEN, BreakerState.HALF_OPEN):
            why = f"{change.trigger} by {change.who}: the version starts with an empty window"
            await self._fold_breaker(Command(key, Action.RESET, WHO, why, self._owner.now_ms()))

    async def _alert(self, *alerts: Alert) -> None:
        """Sends alerts before the row is written: if the owner dies in between, they are repeated and not lost."""
        for alert in alerts:
            await self._send(self._alerts, alert.name, alert.to_bytes())

    async def _send_order(self, order: Order) -> None:
        await self._send(self._outcomes, order.target, order.to_bytes())

    async def _send(self, topic: Any, key: str, value: bytes) -> None:
        await (await topic.send(key=key.encode(), value=value))

    def _publish_version(self, model: str, row: RolloutRow, now_ms: int) -> None:
        """Writes a changed row at once. A row with nothing but newer heartbeats is kept in memory, and written every
        ``HEARTBEAT_MS``. A new owner learns those heartbeats when workers send them again.
        """
        before, at_ms = self._published.get(model, (None, 0))
        if rollout.is_news(row, before) or not 0 <= now_ms - at_ms < HEARTBEAT_MS:
            self._published[model] = row, now_ms
            self._write(self._rollouts, model, row)
        else:
            self._written()[self._rollouts.name, model] = row, row.to_dict()

    def _write(self, table: Any, key: str, row: BreakerRow | RolloutRow) -> None:
        value = row.to_dict()
        self._written()[table.name, key] = row, value
        table[key] = value
        self.on_row()

    def _breaker(self, key: str) -> BreakerRow | None:
        return self._row(self._breakers, key, BreakerRow)

    def _rollout(self, model: str) -> RolloutRow | None:
        return self._row(self._rollouts, model, RolloutRow)

    def _row(self, table: Any, key: str, kind: type[TableRow]) -> TableRow | None:
        if (table.name, key) in self._written():
            return cast(TableRow, self._written()[table.name, key][0])
        stored = table.get(key)
        if stored is None:
            return None
        try:
            return kind.from_dict(stored)
        except Malformed as e:
            log.error(
                "a table row cannot be read and is replaced by a new one", table=table.name, key=key, error=str(e)
            )
            return None
