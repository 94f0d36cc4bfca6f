"""Requests and answers with the ids of topics, byte by byte, and when they are used."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest

from failsoft.workers.kafka.fetch_by_id import FetchAnswerById, FetchByIdCall, FetchCall_v13, varint
from failsoft.workers.kafka.fetch_protocol import FetchAnswer, FetchCall, FetchCall_v11, PartitionAnswer
from failsoft.workers.kafka.fetch_session import FetchContent

A, B = bytes(range(16)), b"\xfe" * 16
IDS = {"a": A, "b": B}
NEW, OLD = {1: (4, 17)}, {1: (0, 12)}


def _call(content: FetchContent, ids: dict[str, bytes] | None = None) -> FetchByIdCall:
    return FetchByIdCall(FetchCall(content, 50, 9999, "r"), IDS if ids is None else ids)


def test_a_request_has_the_bytes_of_kafkas_definition() -> None:
    """FetchRequest.json, version 13: compact arrays with their length plus one, and no tagged fields."""
    content = FetchContent(7, 8, [(("a", 1), 5, 100), (("b", 0), 6, 99), (("a", 2), 2**40, 1)], [("b", 300)])
    expected = b"".join(
        [
            struct.pack(">iiiibii", -1, 50, 1, 9999, 1, 7, 8),
            b"\x03",  # two topics
            *(A, b"\x03", struct.pack(">iiqiqi", 1, -1, 5, -1, -1, 100), b"\0"),
            *(struct.pack(">iiqiqi", 2, -1, 2**40, -1, -1, 1), b"\0", b"\0"),
            *(B, b"\x02", struct.pack(">iiqiqi", 0, -1, 6, -1, -1, 99), b"\0", b"\0"),
            *(b"\x02", B, b"\x02", struct.pack(">i", 300), b"\0"),  # forgotten
            *(b"\x02r", b"\0"),  # the rack
        ]
    )
    prepared = _call(content).prepare(NEW)
    assert isinstance(prepared, FetchCall_v13) and prepared.encode() == expected
    header = prepared.build_request_header(3, "me").encode()
    assert header == struct.pack(">hhi", 1, 13, 3) + b"\0\x02me\0"
    assert prepared.RESPONSE_TYPE is FetchAnswerById and "session_id=7" in repr(prepared)


@pytest.mark.parametrize(
    ("versions", "ids"), [(OLD, IDS), (NEW, {}), (NEW, {"a": A})], ids=["old broker", "no ids", "one id is missing"]
)
def test_names_are_used_where_ids_cannot_be(versions: dict[int, tuple[int, int]], ids: dict[str, bytes]) -> None:
    """A broker refuses a session with both, and a worker must run with brokers before 3.1."""
    content = FetchContent(0, 0, [(("a", 1), 5, 100)], [("b", 2)])
    prepared = _call(content, ids).prepare(versions)
    assert type(prepared) is FetchCall_v11
    answer = FetchAnswer(0, 0, 1, [])
    assert _call(content).read(answer) is answer


def test_a_session_by_names_stays_one_when_a_request_names_no_topic() -> None:
    """A cluster without ids, as with an old inter.broker.protocol.version: the broker would end the session."""
    assert type(_call(FetchContent(7, 2, [], []), {}).prepare(NEW)) is FetchCall_v11


ANSWER = b"".join(
    [
        struct.pack(">ihi", 9, 0, 77),
        b"\x03",
        *(A, b"\x03"),
        struct.pack(">ihqqq", 1, 0, 50, 49, 0),
        *(b"\x03", struct.pack(">qq", 5, 6), b"\0", struct.pack(">qq", 7, 8), b"\0"),  # aborted
        *(struct.pack(">i", 2), varint(300 + 1), b"x" * 300, b"\0"),
        struct.pack(">ihqqq", 2, 100, -1, -1, -1),
        *(
            b"\0",
            struct.pack(">i", -1),
            b"\0",
            b"\x01\x01\x02zz",
            b"\0",
        ),  # null, with a tagged field
        *(B, b"\x02", struct.pack(">ihqqq", 0, 0, 1, 1, 0), b"\x01", struct.pack(">i", -1), b"\x01", b"\0", b"\0"),
        b"\0",
    ]
)


def _read(raw: bytes, ids: dict[str, bytes]) -> FetchAnswer:
    stream = BytesIO(b"head" + raw)
    stream.seek(4)
    return _call(FetchContent(0, 0, [], []), ids).read(FetchAnswerById.decode(stream))


def test_an_answer_is_read_with_the_names_of_its_topics() -> None:
    """Null and empty arrays and records are empty; tagged fields of newer brokers are skipped."""
    first = PartitionAnswer("a", 1, 0, 50, 49, [(5, 6), (7, 8)], 2, b"x" * 300)
    second = PartitionAnswer("a", 2, 100, -1, -1, [], -1, b"")
    third = PartitionAnswer("b", 0, 0, 1, 1, [], -1, b"")
    assert _read(ANSWER, IDS) == FetchAnswer(9, 0, 77, [first, second, third])
    assert _read(ANSWER, {"b": B}) == FetchAnswer(9, 0, 77, [third]), "a topic of another id is none of ours"


def test_an_answer_by_id_that_is_cut_is_refused() -> None:
    """At whatever byte but the last, which says that nothing follows."""
    for length in range(len(ANSWER) - 1):
        with pytest.raises((struct.error, IndexError)):
            _read(ANSWER[:length], IDS)


@pytest.mark.parametrize(("number", "raw"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02")])
def test_numbers_of_variable_length(number: int, raw: bytes) -> None:
    """Seven bits a byte, the lowest first."""
    assert varint(number) == raw
