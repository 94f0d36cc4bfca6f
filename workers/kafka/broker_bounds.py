"""Turns a broker's refusal of a configured timeout into a refusal of the key, with the broker's own bound."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DescribeConfigsRequest

from failsoft.schemas.config.duration import text
from failsoft.schemas.config.refusal import Refused

FILE = "pipeline.toml"

BROKER = 4
"""Kafka's number of the resource type of a broker's settings."""

SHORTEST_SESSION, LONGEST_SESSION = "group.min.session.timeout.ms", "group.max.session.timeout.ms"
LONGEST_TRANSACTION = "transaction.max.timeout.ms"

ASK_WITHIN = 5.0
"""Seconds for the question: the refusal is said without the bound then."""


async def session_refused(client: AIOKafkaClient, node: int | None, session_ms: int) -> Refused:
    """The refusal of a session timeout, in milliseconds, by the coordinator ``node``."""
    found = await _settings(client, node, (SHORTEST_SESSION, LONGEST_SESSION))
    return Refused(
        FILE,
        [
            f"kafka.session_timeout: the broker refuses {text(session_ms / 1000)}: it allows "
            f"{_bound(found, SHORTEST_SESSION)} to {_bound(found, LONGEST_SESSION)}; with another value, "
            f"kafka.heartbeat_interval may be at most a third of it"
        ],
    )


async def transaction_refused(client: AIOKafkaClient, timeout_ms: int) -> Refused:
    """The refusal of a transaction timeout, in milliseconds, by a transaction's coordinator."""
    found = await _settings(client, client.get_random_node(), (LONGEST_TRANSACTION,))
    return Refused(
        FILE,
        [
            f"kafka.transaction_timeout: the broker refuses {text(timeout_ms / 1000)}: it allows at most "
            f"{_bound(found, LONGEST_TRANSACTION)}; kafka.request_timeout must fit three times into it"
        ],
    )


def _bound(found: Mapping[str, str], name: str) -> str:
    """A setting's value, and its name; the name alone if the broker did not tell the value."""
    value = found.get(name, "")
    return f"{text(int(value) / 1000)} ({name})" if value.isdigit() and int(value) else f"its {name}"


async def _settings(client: AIOKafkaClient, node: int | None, names: Collection[str]) -> dict[str, str]:
    """Settings of a broker; empty if it does not tell them, as without the right DescribeConfigs on the cluster."""
    if node is None:
        return {}
    request = DescribeConfigsRequest([(BROKER, str(node), list(names))])
    try:
        response = await asyncio.wait_for(client.send(node, request), ASK_WITHIN)
    except (KafkaError, TimeoutError):
        return {}
    return {entry[0]: entry[1] or "" for resource in response.resources if not resource[0] for entry in resource[4]}
