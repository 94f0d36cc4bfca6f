"""The private names of aiokafka with which connections are made, diagnosed and watched, each with a check."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from aiokafka import client, conn
from aiokafka.protocol.admin import SaslHandShakeRequest
from aiokafka.protocol.metadata import MetadataRequest


def _takes(function: Any, *names: str) -> bool:
    return list(inspect.signature(function).parameters) == list(names)


def _reads(function: Any, name: str) -> bool:
    return name in function.__code__.co_names


_CLIENT = client.AIOKafkaClient

CONNECTIONS: dict[str, Callable[[], object]] = {
    # Connecting: topics/connection, workers/kafka/connections.py.
    "aiokafka.conn:create_conn": lambda: (
        list(inspect.signature(conn.create_conn).parameters)[:4] == ["host", "port", "client_id", "request_timeout_ms"]
        and {"ssl_context", "sasl_oauth_token_provider"} <= set(inspect.signature(conn.create_conn).parameters)
    ),
    "aiokafka.client:create_conn": lambda: all(
        _reads(function, "create_conn") for function in (_CLIENT.bootstrap, _CLIENT._get_conn)
    ),
    "aiokafka.conn:collect_hosts": lambda: (
        [each[:2] for each in conn.collect_hosts("a:1,[::1]:2,b", randomize=False)]
        == [("a", 1), ("::1", 2), ("b", 9092)]
    ),
    "aiokafka.conn:OAuthAuthenticator": lambda: (
        _takes(conn.OAuthAuthenticator.step, "self", "payload")
        and _reads(conn.AIOKafkaConnection.authenticator_oauth, "OAuthAuthenticator")
    ),
    "aiokafka.protocol.admin:SaslHandShakeRequest": lambda: _takes(SaslHandShakeRequest, "mechanism"),
    "aiokafka.protocol.metadata:MetadataRequest": lambda: "topics" in inspect.signature(MetadataRequest).parameters,
}
