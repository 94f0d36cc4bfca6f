"""The ids of topics are read from the metadata; brokers and topics without ids give none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import TopicAuthorizationFailedError

from failsoft.workers.kafka.protocol import MetadataResponse_v10
from failsoft.workers.kafka.topic_ids import topic_ids

PARTITION = b"\2" + b"\0\0" + b"\0\0\0\0" + b"\0\0\0\1" + b"\0\0\0\0" + b"\2\0\0\0\1" * 2 + b"\1" + b"\0"
ID = bytes.fromhex("fb2a9e3c5d6f4e80a1b2c3d4e5f60718")


def _response(*topics: tuple[int, bytes, bytes]) -> Any:
    """A response of one broker, from its bytes: (error code, name, id) of each topic."""
    rows = b"".join(
        code.to_bytes(2, "big") + bytes([len(name) + 1]) + name + raw + b"\0" + PARTITION + b"\x80\0\0\0" + b"\0"
        for code, name, raw in topics
    )
    broker = b"\0\0\0\1" + b"\2h" + b"\0\0\x23\x84" + b"\0" + b"\0"
    data = bytes(4) + b"\2" + broker + b"\2c" + b"\0\0\0\1" + bytes([len(topics) + 1]) + rows + b"\x80\0\0\0" + b"\0"
    found = MetadataResponse_v10.decode(data)
    assert found.encode() == data
    return found


def _client(answer: Any, versions: tuple[int, int] = (0, 13)) -> Any:
    async def send(node: int, request: Any) -> Any:
        assert node == 1 and [t[2] for t in request.prepare({3: versions}).topics] == ["a", "b"]
        return answer

    return SimpleNamespace(send=send, get_random_node=lambda: 1)


async def test_each_topic_that_exists_has_an_id_in_base64() -> None:
    """A topic that does not exist is left out; one with the id of 16 zero bytes has none."""
    client = _client(_response((0, b"a", ID), (3, b"b", bytes(16))))
    assert await topic_ids(client, ["a", "b"]) == {"a": "-yqePF1vToChssPU5fYHGA"}
    client = _client(_response((0, b"a", bytes(16)), (0, b"b", ID)))
    assert await topic_ids(client, ["a", "b"]) == {"a": None, "b": "-yqePF1vToChssPU5fYHGA"}


async def test_a_broker_of_an_older_version_has_no_ids() -> None:
    """Brokers before Kafka 2.8 know no topic ids; no topics need no request."""
    assert await topic_ids(_client(None, (0, 9)), ["a", "b"]) == {"a": None, "b": None}
    assert await topic_ids(SimpleNamespace(), []) == {}


async def test_a_refusal_is_raised() -> None:
    """A topic that may not be described is no topic without an id."""
    with pytest.raises(TopicAuthorizationFailedError, match="b"):
        await topic_ids(_client(_response((0, b"a", ID), (29, b"b", bytes(16)))), ["a", "b"])
