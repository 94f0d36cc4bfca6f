"""The fast encoder and decoder agree with aiokafka's, byte for byte."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import pytest
from aiokafka.protocol.fetch import FetchRequest_v11, FetchResponse_v11

from failsoft.workers.kafka.fetch_protocol import FetchAnswer, FetchCall, FetchCall_v11, PartitionAnswer
from failsoft.workers.kafka.fetch_session import FetchContent

CONTENTS = {
    "full": FetchContent(0, 0, [(("topic", 0), 5, 100), (("other", 2), 2**40, 1), (("topic", 7), 0, 2**31 - 1)], []),
    "changes": FetchContent(2**31 - 1, 2**31 - 1, [(("topic", 0), 5, 100)], [("other", 1), ("öther", 2), ("other", 3)]),
    "nothing": FetchContent(3, 1, [], []),
}
ANSWERS: list[tuple[Any, ...]] = [
    (7, 0, 99, []),
    (0, 70, 0, []),
    (
        0,
        0,
        2**31 - 1,
        [
            ("topic", [(0, 0, 2**40, 9, 1, [(5, 6), (7, 8)], -1, b"records"), (3, 6, -1, -1, -1, None, -1, None)]),
            ("öther", [(1, 0, 8, 7, 0, [], 2, b"")]),
            ("empty", []),
        ],
    ),
]


def _by_topic(pairs: list[tuple[tuple[str, int], Any]]) -> list[tuple[str, list[Any]]]:
    found: dict[str, list[Any]] = {}
    for (topic, _), value in pairs:
        found.setdefault(topic, []).append(value)
    return list(found.items())


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_a_request_has_the_bytes_of_aiokafkas(content: FetchContent) -> None:
    """Read committed records, wait for one byte, as a consumer without a leader epoch."""
    asked = _by_topic([((t, p), (p, -1, offset, -1, most)) for (t, p), offset, most in content.partitions])
    forgotten = _by_topic([((t, p), p) for t, p in content.forgotten])
    theirs = FetchRequest_v11(-1, 50, 1, 9999, 1, content.session_id, content.epoch, asked, forgotten, "räck")
    assert FetchCall_v11(content, 50, 9999, "räck").encode() == theirs.encode()


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_read_as_aiokafka_reads_it(answer: tuple[Any, ...]) -> None:
    """The stream stands behind the response's header, and a null array or null records are empty."""
    stream = BytesIO(b"head" + FetchResponse_v11(*answer).encode())
    stream.seek(4)
    throttle, error, session_id, topics = answer
    assert FetchAnswer.decode(stream) == FetchAnswer(
        throttle,
        error,
        session_id,
        [
            PartitionAnswer(topic, partition, code, high, stable, aborted or [], preferred, records or b"")
            for topic, parts in topics
            for partition, code, high, stable, _start, aborted, preferred, records in parts
        ],
    )


def test_an_answer_that_is_cut_is_refused() -> None:
    """At whatever byte: records that are missing must not look like a short answer."""
    raw = FetchResponse_v11(*ANSWERS[2]).encode()
    for length in range(len(raw)):
        with pytest.raises((struct.error, ValueError)):
            FetchAnswer.decode(BytesIO(raw[:length]))


def test_aiokafkas_connection_can_send_it() -> None:
    """It prepares the request for the broker's versions, and refuses a broker that is too old."""
    call = FetchCall(CONTENTS["nothing"], 50, 9999, "")
    prepared = call.prepare({1: (4, 17)})
    assert prepared.RESPONSE_TYPE is FetchAnswer
    assert prepared.encode() == FetchCall_v11(CONTENTS["nothing"], 50, 9999, "").encode()
    assert prepared.build_request_header(3, "me").encode()[:8] == struct.pack(">hhi", 1, 11, 3)
    assert "changes" not in repr(prepared) and "session_id=3" in repr(prepared)
    with pytest.raises(NotImplementedError):
        call.prepare({1: (0, 10)})
