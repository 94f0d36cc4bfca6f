"""The Faust app of the control plane; the only file that uses Faust's private parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faust
from faust.app import BootStrategy
from faust.transport.drivers import aiokafka as driver

FETCH_WAIT_MS = 50
"""Longest wait of a fetch at the broker, in milliseconds. A fetch leaves out a topic whose fetched records are not yet
consumed; new records of that topic wait until the fetch ends. With Faust's default of 1,500, reports took up to 1.7 s
on a busy machine."""


class _Boot(BootStrategy):  # type: ignore[misc]
    enable_web = False


class _Thread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # Faust has no setting for it; the consumer has not started yet
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
    """A GlobalTable class for an app's setting ``GlobalTable``; ``changelogs`` maps table names to changelog topics."""

    class Table(faust.GlobalTable):  # type: ignore[misc]
        # Passed as ``changelog_topic``, a custom name makes the group's leader loop forever in the assignment.
        def _changelog_topic_name(self) -> str:
            return changelogs[self.name]

    return Table


def credentials(connection: Mapping[str, Any]) -> Any:
    """Faust's credentials object for the TLS and SASL settings in ``connection``; None for plain text."""
    protocol, context = connection["security_protocol"], connection.get("ssl_context")
    if tokens := connection.get("sasl_oauth_token_provider"):
        return faust.OAuthCredentials(oauth_cb=tokens, ssl_context=context)
    if protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=connection["sasl_plain_username"],
            password=connection["sasl_plain_password"],
            mechanism=connection["sasl_mechanism"],
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if protocol == "SSL" else None
