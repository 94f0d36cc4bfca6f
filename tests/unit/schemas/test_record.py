"""Records: which headers are the event's own."""

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


def test_the_events_own_headers_are_what_is_not_ours() -> None:
    """In order, duplicates, missing values and non-UTF-8 ones included; the reserved prefix is taken away."""
    own = [h for h in HEADERS if not h[0].startswith("failsoft-")]
    assert own_headers(HEADERS) == own and own_headers([]) == []


def test_on_a_dead_letter_kafkas_names_are_control_headers_too() -> None:
    """They are written anew there, so the ones before are replaced, not kept beside."""
    assert ("__dlq.errors.topic", b"theirs") in own_headers(HEADERS)
    assert [k for k, _ in own_headers(HEADERS, dead_letter=True)] == [
        "own",
        "own",
        "traceparent",
        "empty",
        "Failsoft-Case",
        "tracestate",
    ]


def test_the_trace_is_w3cs_two_headers() -> None:
    """Unchanged, and nothing else."""
    assert trace_headers(HEADERS) == [("traceparent", b"00-a-b-01"), ("tracestate", b"x=1")]
