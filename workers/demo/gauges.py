"""What each worker says of its breakers, at /metrics."""

from __future__ import annotations

import asyncio
import urllib.request
from collections import Counter
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

SOON = 2.0
"""Seconds to wait for an answer: the server is on this machine, and has a thread of its own."""


@dataclass(frozen=True, slots=True)
class Breakers:
    """One worker's: states by ``model@version``, and how often each moved, by (``model@version``, from, to)."""

    states: dict[str, str] = field(default_factory=dict)
    moves: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def opened(self, key: str) -> int:
        """How often the breaker of ``key`` opened."""
        return sum(n for (moved, _, to), n in self.moves.items() if (moved, to) == (key, "open"))


def read(page: str) -> Breakers:
    """The breakers on a page of Prometheus's text format."""
    found = Breakers()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "failsoft_breaker_state" and sample.value == 1:
                found.states[f"{labels['model']}@{labels['version']}"] = labels["state"]
            elif sample.name == "failsoft_breaker_transitions_total" and sample.value:
                key = f"{labels['model']}@{labels['version']}"
                found.moves[key, labels["from"], labels["to"]] = int(sample.value)
    return found


async def scrape(address: str) -> Breakers:
    """The breakers of the worker whose HTTP server is at ``address``. Raises OSError when it does not answer."""

    def get() -> str:
        with urllib.request.urlopen(f"{address}/metrics", timeout=SOON) as answer:
            return str(answer.read().decode())

    return read(await asyncio.to_thread(get))
