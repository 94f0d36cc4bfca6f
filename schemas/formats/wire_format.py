"""The formats of an event's value."""

from __future__ import annotations

from enum import StrEnum


class WireFormat(StrEnum):
    """How the values of an input topic are encoded, by the words of ``[input] format``."""

    JSON = "json"
    AVRO = "avro"
    PROTOBUF = "protobuf"
