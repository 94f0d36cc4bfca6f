"""The Prometheus series of a worker, which the table of metrics defines."""

from __future__ import annotations

import bisect
import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from failsoft.models.breaker.rules import BreakerState
from failsoft.workers.telemetry.metric_table import TABLE, Definition, MetricType

# A counter with at most this many possible label values has all its series from the start, at 0. The rate of a series
# that first appears at 1 would miss its first event.
_BORN_AT_ZERO = 20

Labels = tuple[str, ...]
Read = Callable[[], Iterable[tuple[Mapping[str, str], float]]]


class _Histogram:
    """One series of a histogram: a count for each bucket (the last one is +Inf), and the sum."""

    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * (buckets + 1)
        self.total = 0.0


class Metrics(Collector):
    """The series of all metrics, registered with ``registry``. Every method may be called from any thread.

    One call counts a whole batch (``n`` events), so the series are kept in plain dicts: the Prometheus client's own
    histogram takes one observation a call. Methods raise KeyError for a name that is not in the table, and ValueError
    for a wrong metric type or wrong labels. These are mistakes in code, and the first call finds them.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lock = threading.Lock()
        self._definitions = {d.name: d for d in TABLE}
        self._values: dict[str, dict[Labels, float]] = {
            d.name: dict.fromkeys(_initial(d), 0.0) for d in TABLE if d.type is not MetricType.HISTOGRAM
        }
        self._histograms: dict[str, dict[Labels, _Histogram]] = {
            d.name: {labels: _Histogram(len(d.buckets)) for labels in _initial(d)}
            for d in TABLE
            if d.type is MetricType.HISTOGRAM
        }
        self._reads: dict[str, Read] = {}
        registry.register(self)

    def add(self, name: str, n: float = 1, /, **labels: str) -> None:
        """Add ``n`` to a counter. (A label named ``from`` is passed as ``**{"from": …}``.)"""
        if not n >= 0:
            raise ValueError(f"{name} only goes up: {n} cannot be added")
        key = self._key(name, MetricType.COUNTER, labels)
        series = self._values[name]
        with self._lock:
            series[key] = series.get(key, 0.0) + n

    def observe(self, name: str, value: float, n: int = 1, /, **labels: str) -> None:
        """Add ``n`` observations of ``value`` to a histogram."""
        key = self._key(name, MetricType.HISTOGRAM, labels)
        buckets = self._definitions[name].buckets
        series = self._histograms[name]
        with self._lock:
            histogram = series.get(key)
            if histogram is None:
                histogram = series[key] = _Histogram(len(buckets))
            histogram.counts[bisect.bisect_left(buckets, value)] += n
            histogram.total += value * n

    def set(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge."""
        key = self._key(name, MetricType.GAUGE, labels)
        with self._lock:
            self._values[name][key] = value

    def inform(self, name: str, /, **labels: str) -> None:
        """Set an info to 1 with these labels, for example ``failsoft_model_info`` of a loaded version."""
        key = self._key(name, MetricType.INFO, labels)
        with self._lock:
            self._values[name][key] = 1.0

    def read(self, name: str, read: Read, /) -> None:
        """Read a gauge at each scrape: ``read()`` returns (labels, value) pairs. It runs on the web server's thread."""
        if self._definitions[name].type is not MetricType.GAUGE:
            raise ValueError(f"{name} is a {self._definitions[name].type}, not a gauge")
        self._reads[name] = read

    def breaker(self, model: str, version: str, state: BreakerState) -> None:
        """Set the state of a breaker: 1 for ``state``, 0 for every other."""
        for other in BreakerState:
            self.set("failsoft_breaker_state", float(other is state), model=model, version=version, state=other)

    def forget(self, **labels: str) -> None:
        """Drop the gauges and infos with all these labels, for example of a version that was unloaded.

        Counters and histograms stay: if they were dropped and came back, Prometheus would take that for a restart.
        Raises ValueError if no labels are given.
        """
        if not labels:
            raise ValueError("forget needs the labels of the series to drop, and none were given")
        for d in TABLE:
            if d.type in (MetricType.GAUGE, MetricType.INFO) and set(labels) <= set(d.labels):
                at = [(d.labels.index(label), value) for label, value in labels.items()]
                with self._lock:
                    for key in [k for k in self._values[d.name] if all(k[i] == value for i, value in at)]:
                        del self._values[d.name][key]

    def describe(self) -> Iterable[Metric]:
        """The families without series. A registry calls this once, to find names that are registered twice."""
        return [_family(d, (), ()) for d in TABLE]

    def collect(self) -> Iterator[Metric]:
        """The families with their current series."""
        for d in TABLE:
            read = [(self._key(d.name, d.type, labels), v) for labels, v in self._reads.get(d.name, tuple)()]
            with self._lock:
                values = [*self._values.get(d.name, {}).items(), *read]
                histograms = [(key, list(h.counts), h.total) for key, h in self._histograms.get(d.name, {}).items()]
            yield _family(d, values, histograms)

    def _key(self, name: str, type_: MetricType, labels: Mapping[str, str]) -> Labels:
        d = self._definitions[name]
        if d.type is not type_:
            raise ValueError(f"{name} is a {d.type}, not a {type_}")
        try:
            key = tuple([str(labels[label]) for label in d.labels])
        except KeyError as missing:
            raise ValueError(f"{name} needs the label {missing}; its labels: {', '.join(d.labels)}") from None
        if len(labels) != len(key):
            raise ValueError(f"{name} has the labels {d.labels}, and was called with {tuple(labels)}")
        return key


def _initial(d: Definition) -> list[Labels]:
    """The label values of the series that a metric has from the start."""
    if not d.labels:
        return [()] if d.type is not MetricType.GAUGE else []  # a gauge that was never set is unknown, not 0
    if d.type is not MetricType.COUNTER or not set(d.labels) <= set(d.values):
        return []
    if math.prod(len(d.values[label]) for label in d.labels) > _BORN_AT_ZERO:
        return []
    return [tuple(map(str, values)) for values in itertools.product(*(d.values[label] for label in d.labels))]


def _family(
    d: Definition,
    values: Iterable[tuple[Labels, float]],
    histograms: Iterable[tuple[Labels, Sequence[int], float]],
) -> Metric:
    if d.type is MetricType.HISTOGRAM:
        family = HistogramMetricFamily(d.name, d.help, labels=d.labels, unit=d.unit)
        edges = [*(str(float(edge)) for edge in d.buckets), "+Inf"]
        for key, counts, total in histograms:
            cumulative = [float(c) for c in itertools.accumulate(counts)]
            family.add_metric(key, buckets=list(zip(edges, cumulative, strict=True)), sum_value=total)
        return family
    if d.type is MetricType.INFO:
        info = InfoMetricFamily(d.name.removesuffix("_info"), d.help)
        for key, _ in values:
            info.add_metric((), dict(zip(d.labels, key, strict=True)))
        return info
    if d.type is MetricType.COUNTER:
        counter = CounterMetricFamily(d.name, d.help, labels=d.labels)
        for key, value in values:
            counter.add_metric(key, value)
        return counter
    gauge = GaugeMetricFamily(d.name, d.help, labels=d.labels, unit=d.unit)
    for key, value in values:
        gauge.add_metric(key, value)
    return gauge
