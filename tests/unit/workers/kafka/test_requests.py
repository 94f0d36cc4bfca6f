"""The requests on the wire: byte by byte where aiokafka has no struct, and what is read from the responses."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.produce import ProduceResponse_v8
from aiokafka.protocol.transaction import AddPartitionsToTxnResponse_v0

from failsoft.workers.kafka import protocol, requests
from failsoft.workers.kafka.member import GroupMember
from failsoft.workers.kafka.requests import OneVersion, error_codes

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)
MEMBER = GroupMember("g", 5, "m", "i")
PRODUCER = (7, 3)
PRODUCER_BYTES = b"\0\0\0\0\0\0\0\7" + b"\0\3"
OFFSET_BYTES = (
    b"\2\2a\2" + b"\0\0\0\1" + b"\0\0\0\0\0\0\0\x09" + b"\xff\xff\xff\xff" + b"\3!x" + b"\0" + b"\0"
)  # one topic, one partition: number, offset, no leader epoch, metadata, end; end

WIRE: list[tuple[OneVersion, int, int, bytes]] = [
    (
        requests.init_producer_id("t", 1000, PRODUCER),
        22,
        3,
        b"\2t" + b"\0\0\x03\xe8" + PRODUCER_BYTES + b"\0",
    ),
    (
        requests.init_producer_id(None, 1000, requests.NO_PRODUCER),
        22,
        3,
        b"\0" + b"\0\0\x03\xe8" + b"\xff" * 10 + b"\0",
    ),
    (
        requests.txn_offset_commit("t", PRODUCER, MEMBER, {A1: (9, "!x")}, adds=False),
        28,
        3,
        b"\2t\2g" + PRODUCER_BYTES + b"\0\0\0\5" + b"\2m\2i" + OFFSET_BYTES + b"\0",
    ),
    (
        requests.txn_offset_commit("t", PRODUCER, GroupMember("g", -1, "", None), {A1: (9, "!x")}, adds=True),
        28,
        5,
        b"\2t\2g" + PRODUCER_BYTES + b"\xff\xff\xff\xff" + b"\1\0" + OFFSET_BYTES + b"\0",
    ),
    (
        requests.offset_commit(MEMBER, {A1: (9, "!x")}),
        8,
        8,
        b"\2g" + b"\0\0\0\5" + b"\2m\2i" + OFFSET_BYTES + b"\0",
    ),
    (
        requests.produce("t", 1000, {A1: b"xy"}, adds=True),
        0,
        12,
        b"\2t" + b"\xff\xff" + b"\0\0\x03\xe8" + b"\2\2a\2" + b"\0\0\0\1" + b"\3xy" + b"\0\0\0",
    ),
    (
        requests.end_transaction("t", PRODUCER, bumps=True),
        26,
        5,
        b"\2t" + PRODUCER_BYTES + b"\1" + b"\0",
    ),
    (
        requests.offset_fetch("g", [A0, A1], require_stable=True),
        9,
        7,
        b"\2g" + b"\2\2a\3" + b"\0\0\0\0" + b"\0\0\0\1" + b"\0" + b"\1" + b"\0",
    ),
    (requests.metadata(["a"]), 3, 10, b"\2" + bytes(16) + b"\2a\0" + b"\0\0\0" + b"\0"),
    (requests.api_versions(), 18, 3, b"\x09failsoft" + b"\0021" + b"\0"),
]


@pytest.mark.parametrize(("request_", "key", "version", "data"), WIRE)
def test_a_request_has_the_bytes_of_kafkas_message_definition(
    request_: OneVersion, key: int, version: int, data: bytes
) -> None:
    """Key, version, and each field in its place; all are flexible versions."""
    struct = request_.struct
    assert (key, version, True) == (struct.API_KEY, struct.API_VERSION, struct.FLEXIBLE_VERSION)
    assert key == struct.RESPONSE_TYPE.API_KEY and version == struct.RESPONSE_TYPE.API_VERSION
    assert struct.encode() == data
    assert type(struct).decode(data) == struct


def test_partitions_are_sent_by_topic_in_order() -> None:
    """One entry a topic: a broker refuses a topic that appears twice."""
    assert requests.add_partitions("t", PRODUCER, [A0, B0, A1]).struct.topics == [("a", [0, 1]), ("b", [0])]
    topics = requests.produce(None, 1, {A0: b"0", B0: b"2", A1: b"1"}, adds=False).struct.topics
    assert topics == [("a", [(0, b"0"), (1, b"1")]), ("b", [(0, b"2")])]


def test_a_broker_without_the_version_is_refused_by_name() -> None:
    """A request of an older version would lack the very field that it is sent for."""
    request_ = requests.offset_fetch("g", [A0], require_stable=True)
    assert request_.prepare({9: (1, 7)}) is request_.struct
    for versions in ({9: (1, 6)}, {9: (8, 9)}, {}):
        with pytest.raises(IncompatibleBrokerVersion, match="OffsetFetch v7 is needed"):
            request_.prepare(versions)


@pytest.mark.parametrize(
    ("response", "found"),
    [
        (protocol.EndTxnResponse_v5(0, 51, -1, -1, {}), [(51, None, "")]),
        (AddPartitionsToTxnResponse_v0(0, [("a", [(0, 0), (1, 3)])]), [(0, A0, ""), (3, A1, "")]),
        (protocol.TxnOffsetCommitResponse_v3(0, [("a", [(1, 22, {})], {})], {}), [(22, A1, "")]),
        (
            protocol.OffsetFetchResponse_v7(0, [("a", [(1, -1, -1, "", 88, {})], {})], 0, {}),
            [(0, None, ""), (88, A1, "")],
        ),
        (protocol.OffsetFetchResponse_v7(0, [], 16, {}), [(16, None, "")]),
        (ProduceResponse_v8([("a", [(1, 10, -1, -1, 0, [], "too big")])], 0), [(10, A1, "too big")]),
        (ProduceResponse_v8([("a", [(1, 32, -1, -1, 0, [(0, "late")], "times")])], 0), [(32, A1, "times: late")]),
        (
            protocol.ProduceResponse_v12([("a", [(1, 32, 5, -1, 0, [(0, "late", {})], None, {})], {})], 0, {}),
            [(32, A1, "late")],
        ),
        (
            protocol.ProduceResponse_v12([("a", [(1, 0, 5, -1, 0, [], None, {})], {})], 0, {}),
            [(0, A1, "")],
        ),
    ],
)
def test_every_error_code_of_a_response_is_seen(response: Any, found: list[Any]) -> None:
    """The code of the whole response and that of each partition (docs/decisions/0008-leaderless-markers.md)."""
    assert list(error_codes(type(response).decode(response.encode()))) == found


FEATURES = b"\3" + b"\x11metadata.version" + b"\0\x1d\0\1\0" + b"\x14transaction.version" + b"\0\2\0\2\0"


@pytest.mark.parametrize(
    ("tags", "version"),
    [({2: FEATURES}, 2), ({2: FEATURES[:-5] + b"\0\1\0\1\0"}, 1), ({2: b"\1"}, 0), ({0: FEATURES}, 0), ({}, 0)],
)
def test_the_clusters_transaction_version_is_read_from_the_tagged_fields(tags: dict[int, bytes], version: int) -> None:
    """The finalized level counts (tag 2), not what a broker could do (tag 0)."""
    assert protocol.transaction_version(protocol.ApiVersionsResponse_v3(0, [], 0, tags)) == version


def test_the_response_to_api_versions_has_the_first_header() -> None:
    """Unlike every other flexible response: there is a correlation id, and no tagged fields."""
    data = BytesIO(b"\0\0\0\5rest")
    assert requests.api_versions().struct.parse_response_header(data).correlation_id == 5
    assert data.read() == b"rest"
