"""The Faust app of the control plane; the only file that touches Faust's insides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faust
from faust.app import BootStrategy
from faust.transport.drivers import aiokafka as driver

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


class FleetApp(faust.App):  # type: ignore[misc]
    BootStrategy = _Boot

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)


def table_type(changelogs: Mapping[str, str]) -> Any:
    """A GlobalTable whose changelog topic is ``changelogs[its name]``, for an app's setting ``GlobalTable``."""

    class Table(faust.GlobalTable):  # type: ignore[misc]
        # Given as ``changelog_topic``, another topic's name keeps the group's leader in the assignment for ever.
        def _changelog_topic_name(self) -> str:
            return changelogs[self.name]

    return Table


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
