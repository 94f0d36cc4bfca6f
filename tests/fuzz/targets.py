"""All fuzz targets by name."""

from __future__ import annotations

from tests.fuzz import avro, batches, features, files, messages, protobuf_values, record_bytes, records
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for part in (records, features, avro, protobuf_values, batches, files, messages, record_bytes)
    for target in part.TARGETS
}
