"""All fuzz targets by name."""

from __future__ import annotations

from tests.fuzz import batches, files, messages, records
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target for part in (records, batches, files, messages) for target in part.TARGETS
}
