"""The events that every program reads: 468 bytes of JSON with 16 numeric features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

FEATURES = tuple(f"feature_{j:04d}" for j in range(16))

EVENT_BYTES = 468
"""The size that docs and earlier measurements state; the names and digits below are chosen to give it."""

DISTINCT = 10_000
"""Distinct feature rows; they repeat under other ids, because the text of a million rows would take half a gigabyte."""

SEED = 7


def rows(n: int = DISTINCT) -> np.ndarray:
    """``(n, 16)`` float32 in [0, 10), the same on each call."""
    return np.random.default_rng(SEED).uniform(0, 9.999999, (n, len(FEATURES))).astype(np.float32)


def events(n: int) -> Iterator[tuple[bytes, bytes]]:
    """``n`` events as (key, value). Keys spread evenly over partitions; ids are ``evt-00000000000`` and so on."""
    texts = [",".join(f'"{name}":{x:.6f}' for name, x in zip(FEATURES, row, strict=True)) for row in rows()]
    for i in range(n):
        event_id = f"evt-{i:011d}"
        value = (
            f'{{"event_id":"{event_id}","occurred_at":"2026-11-24T10:00:00.123Z",'
            f'"features":{{{texts[i % len(texts)]}}}}}'
        ).encode()
        if len(value) != EVENT_BYTES:
            raise AssertionError(f"an event of {len(value)} bytes")
        yield event_id.encode(), value


def _odd() -> tuple[str, float]:
    first = np.sort(rows()[:, 0])
    n = DISTINCT // ODD_OF
    return FEATURES[0], float(first[n - 1] + first[n]) / 2


ODD_OF = 100
"""One row in ODD_OF is odd, for the programs whose model fails on some rows."""

ODD = _odd()
"""A feature, and the value below which a row is odd."""


def odd_among(n: int) -> int:
    """The number of odd events among the first ``n``."""
    odd = rows()[:, FEATURES.index(ODD[0])] < ODD[1]
    return n // DISTINCT * int(odd.sum()) + int(odd[: n % DISTINCT].sum())
