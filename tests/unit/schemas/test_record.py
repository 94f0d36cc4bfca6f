"""Records: the event's own headers, and control headers."""

from __future__ import annotations

from failsoft.schemas.record import Header, own_headers, trace_headers

HEADERS: list[Header] = [
    ("own", b"1"),
    ("failsoft-attempt", b"3"),
    ("own", b"\xff"),
    ("__dlq.errors.topic", b"theirs"),
    ("failsoft-anything", None),
    ("traceparent", b"00-a-b-01"),
    ("empty", None),
    ("Failsoft-Case", b"own"),
    ("tracestate", b"x=1"),
]


def test_own_headers_are_all_but_control_headers() -> None:
    """Own headers keep their order, duplicates, missing and non-UTF-8 values; headers with our prefix are removed."""
    own = [h for h in HEADERS if not h[0].startswith("failsoft-")]
    assert own_headers(HEADERS) == own and own_headers([]) == []


def test_on_a_dead_letter_kafkas_names_are_control_headers_too() -> None:
    """On a dead letter KIP-1191's headers are removed, because new ones replace them."""
    assert ("__dlq.errors.topic", b"theirs") in own_headers(HEADERS)
    assert [k for k, _ in own_headers(HEADERS, dead_letter=True)] == [
        "own",
        "own",
        "traceparent",
        "empty",
        "Failsoft-Case",
        "tracestate",
    ]


def test_trace_headers_are_the_two_of_w3c() -> None:
    """The trace context is traceparent and tracestate, unchanged."""
    assert trace_headers(HEADERS) == [("traceparent", b"00-a-b-01"), ("tracestate", b"x=1")]
