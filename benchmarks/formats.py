"""The benchmark's job with events in other formats: failsoft's rate with each, and a hand-written loop beside it."""

from __future__ import annotations

from benchmarks import encoded, events, kinds
from benchmarks.candidates import EXACTLY, HAND, HAND_AVRO, HAND_PROTOBUF, OURS_AVRO, OURS_PROTOBUF, Bench
from benchmarks.events import EVENT_BYTES
from benchmarks.kinds import Source

COMPARED = (EXACTLY, HAND, OURS_AVRO, HAND_AVRO, OURS_PROTOBUF, HAND_PROTOBUF)

RATIOS = (
    (OURS_AVRO, EXACTLY, "Avro / JSON"),
    (OURS_PROTOBUF, EXACTLY, "Protobuf / JSON"),
    (EXACTLY, HAND, "JSON / a hand-written loop that does the same"),
    (OURS_AVRO, HAND_AVRO, "Avro / a hand-written loop that does the same"),
    (OURS_PROTOBUF, HAND_PROTOBUF, "Protobuf / a hand-written loop that does the same"),
)


def by_format(bench: Bench, n: int, rounds: int) -> str:
    """The rates with each format in turn, over ``n`` events each, as Markdown."""
    sources = {
        "standard": Source(events.events, EVENT_BYTES),
        encoded.AVRO: Source(encoded.avro_events, kinds.size(encoded.avro_events)),
        encoded.PROTOBUF: Source(encoded.protobuf_events, kinds.size(encoded.protobuf_events)),
    }
    return kinds.rates(bench, "formats", n, rounds, sources, COMPARED, RATIOS)
