"""The control plane: a Faust app whose one agent owns the table of breakers.

Its only topic of input has one partition, so one worker of the fleet folds and every worker reads. It is an app of its
own, apart from the one that carries the lanes: whatever becomes of it, events are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import faust
import structlog
from faust.app.base import BootStrategy
from faust.tables.globaltable import GlobalTable
from faust.transport.drivers import aiokafka as driver

from models.breaker import Policy
from models.fleet import fold, targets
from schemas import wire
from schemas.fleet import BreakerRow, Command, Report
from schemas.wire import Malformed
from topics.names import Names
from workers.identity import own_folder

log = structlog.get_logger("failsoft.fleet")

SESSION = 6.0
"""Seconds after which an owner that is gone is replaced; the data plane's session is as long."""


FETCH_WAIT_MS = 50
"""How long a fetch waits at the broker, at most. A fetch that begins while records of a topic wait to be taken leaves
that topic out, and what is written there meanwhile waits for its end: with Faust's own 1,500, reports were up to 1.7 s
on their way when the machine was busy."""


class _Boot(BootStrategy):  # type: ignore[misc]
    enable_web = False


class _Thread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # Faust has no setting for it, and the consumer starts later
        return consumer


class _Consumer(driver.Consumer):  # type: ignore[misc]
    def _new_consumer_thread(self) -> Any:
        return _Thread(self, loop=self.loop, beacon=self.beacon)


class _Transport(driver.Transport):  # type: ignore[misc]
    Consumer = _Consumer


class _App(faust.App):  # type: ignore[misc]
    BootStrategy = _Boot

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)


@dataclass(frozen=True, slots=True)
class Owner:
    """What whoever owns the breakers needs. ``policies`` has a policy for each model, ``wall`` is epoch seconds."""

    policies: Mapping[str, Policy]
    wall: Callable[[], float]
    draw: Callable[[], float]

    def messages(self, raw: bytes | None, keys: set[str]) -> list[Report | Command]:
        """What a record of ``<name>.outcomes`` says, a command once for each key that it means; ``keys`` have rows."""
        given = wire.loads(raw, 65_536)
        if not isinstance(given, dict) or "action" not in given:
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
        version = target.rpartition("@")[2]
        return self.policy(target) is not None and version.isascii() and version.isdigit() and len(version) <= 18

    def policy(self, key: str) -> Policy | None:
        """That of a key's model; None for a model that this pipeline does not have (any more)."""
        return self.policies.get(key.rpartition("@")[0])


def credentials(connection: Mapping[str, Any]) -> Any:
    """TLS and SASL of an aiokafka client's ``connection``, as Faust wants them; None for plain text."""
    protocol, context = connection["security_protocol"], connection.get("ssl_context")
    if protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=connection["sasl_plain_username"],
            password=connection["sasl_plain_password"],
            mechanism=connection["sasl_mechanism"],
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if protocol == "SSL" else None


class ControlPlane:
    """A Faust app, and the table that it keeps. ``connection`` is how aiokafka's clients connect (``Settings``), and
    ``keys`` are the versions that this worker has loaded.
    """

    def __init__(
        self,
        names: Names,
        connection: Mapping[str, Any],
        worker: str,
        owner: Owner,
        keys: Callable[[], set[str]],
    ) -> None:
        changelog = names.breakers_changelog

        class Table(GlobalTable):  # type: ignore[misc]
            # Given as ``changelog_topic``, another topic's name keeps the group's leader in the assignment for ever.
            def _changelog_topic_name(self) -> str:
                return changelog

        self.app = _App(
            names.control_group,
            broker=f"kafka://{connection['bootstrap_servers'].replace(',', ';')}",
            broker_credentials=credentials(connection),
            autodiscover=False,
            web_enabled=False,
            worker_redirect_stdouts=False,
            broker_client_id=worker,
            broker_session_timeout=SESSION,
            broker_heartbeat_interval=1.0,
            consumer_auto_offset_reset="earliest",
            # Faust makes folders for tables on disk. Ours is in memory, and its changelog in Kafka.
            datadir=own_folder() / "faust",
            GlobalTable=Table,
        )
        self._owner, self._keys = owner, keys
        self.on_row: Callable[[], None] = lambda: None  # called when there is something new in ``rows``
        self._ready = False
        self._era = -1
        self._own: dict[str, tuple[BreakerRow, dict[str, Any]]] = {}
        self._outcomes = self._topic(names.outcomes)
        self._control = self._topic(names.control)
        self._alerts = self._topic(names.alerts)
        # These two settings, or other workers see nothing until the next rebalance.
        self.table = self.app.GlobalTable(
            "breakers", partitions=1, recovery_buffer_size=1, on_changelog_event=self._read
        )
        self.app.agent(self._outcomes, name="breakers.fold", concurrency=1)(self._fold)
        self.app.agent(self._control, name="breakers.relay", concurrency=1)(self._relay)

    def _topic(self, name: str) -> Any:
        return self.app.topic(
            name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", partitions=1
        )

    async def end(self) -> None:
        """Stops the app, which hands what it owns to the other workers."""
        await self.app.stop()

    @property
    def ready(self) -> bool:
        """Was the table read to its end, once? A rebalance reads it again, but forgets nothing meanwhile."""
        self._ready = self._ready or self.app.tables.recovery.completed.is_set()
        return self._ready

    def rows(self) -> Mapping[str, dict[str, Any]]:
        """The fleet's rows by key, as they are now: each write replaces the dict, none changes one."""
        return {**self.table, **{key: value for key, (_, value) in self._written().items()}}

    def _written(self) -> dict[str, tuple[BreakerRow, dict[str, Any]]]:
        """What this owner wrote since the group's last rebalance; before that another may have been the owner.

        The table alone will not do for its writer: Faust reads every write back, tens of milliseconds later, and puts
        it over what was written since. Reports and orders that came within that time were lost.
        """
        if self._era != self.app.consumer_generation_id:
            self._era, self._own = self.app.consumer_generation_id, {}
        return self._own

    async def _read(self, event: Any) -> None:
        """Faust calls this when a row has come, and applies it before it awaits anything."""
        self.on_row()

    async def _relay(self, stream: Any) -> None:
        """Commands go the way of reports, so that one agent alone writes the table."""
        async for event in stream.events():
            try:
                command = Command.parse(event.value)
            except Malformed as e:
                log.warning("a command is not one", error=str(e))
                continue
            await (await self._outcomes.send(key=command.target.encode(), value=event.value))

    async def _fold(self, stream: Any) -> None:
        async for event in stream.events():
            try:
                messages = self._owner.messages(event.value, self._keys() | {str(k) for k in self.table})
            except Malformed as e:
                log.warning("a report is not one", error=str(e))
                continue
            for message in messages:
                await self._take(message)

    async def _take(self, message: Report | Command) -> None:
        key = message.key if isinstance(message, Report) else message.target
        policy = self._owner.policy(key)
        if policy is None:
            return
        row = self._row(key)
        folded = fold(row, message, policy, int(self._owner.wall() * 1000), self._owner.draw())
        for alert in folded.alerts:  # before the row: an owner that dies in between says it twice, and not never
            await (await self._alerts.send(key=alert.name.encode(), value=alert.to_bytes()))
        if folded.row is not None and folded.row is not row:
            value = folded.row.to_dict()
            self._written()[key] = folded.row, value
            self.table[key] = value
            self.on_row()

    def _row(self, key: str) -> BreakerRow | None:
        if key in self._written():
            return self._written()[key][0]
        held = self.table.get(key)
        if held is None:
            return None
        try:
            return BreakerRow.from_dict(held)
        except Malformed as e:
            log.error("a breaker's row cannot be read, and begins anew", key=key, error=str(e))
            return None
