"""The undocumented parts of aiokafka with which workers/kafka fetches, and what it relies on in each of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.api import Request
from aiokafka.protocol.fetch import FetchRequest_v11
from aiokafka.protocol.offset import OffsetRequest


def _takes(function: Any, *names: str) -> bool:
    return list(inspect.signature(function).parameters) == list(names)


def _reads(function: Any, *names: str) -> bool:
    return set(names) <= set(function.__code__.co_names)


FETCHING: dict[str, Callable[[], object]] = {
    "aiokafka.client:AIOKafkaClient": lambda: (
        _takes(AIOKafkaClient.send, "self", "node_id", "request", "group")
        and _takes(AIOKafkaClient.force_metadata_update, "self")
        and _takes(AIOKafkaClient.add_topic, "self", "topic")
        and _reads(AIOKafkaClient.__init__, "ClusterMetadata", "cluster")
        and _takes(ClusterMetadata.leader_for_partition, "self", "partition")
        and _takes(ClusterMetadata.add_listener, "self", "listener")
        and _takes(ClusterMetadata.remove_listener, "self", "listener")
        and _reads(ClusterMetadata.update_metadata, "_listeners")
    ),
    "aiokafka.protocol.api:Request": lambda: _reads(Request.prepare, "build") and "build" in vars(Request),
    "aiokafka.protocol.fetch:FetchRequest_v11": lambda: (
        (FetchRequest_v11.API_KEY, FetchRequest_v11.API_VERSION) == (1, 11)
        and _reads(AIOKafkaConnection.send, "prepare", "build_request_header", "encode")
        and _reads(AIOKafkaConnection._handle_frame, "RESPONSE_TYPE", "decode", "BytesIO")
    ),
    "aiokafka.protocol.offset:OffsetRequest": lambda: _takes(OffsetRequest, "replica_id", "isolation_level", "topics"),
}
