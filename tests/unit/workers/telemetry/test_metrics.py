"""The metrics: the names that the contract promises, and the content of a scrape."""

from __future__ import annotations

import threading

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.failure import Kind
from failsoft.workers.telemetry.metric_table import OUTCOMES, REPLAYED, TABLE, MetricType
from failsoft.workers.telemetry.metrics import Metrics

# The contract's list, with labels: users' dashboards, alerts and scripts depend on it.
PROMISED = {
    "failsoft_events_total": ("topic", "outcome"),
    "failsoft_answers_total": ("source", "reason"),
    "failsoft_event_latency_seconds": (),
    "failsoft_inference_seconds": ("model", "version"),
    "failsoft_inference_failures_total": ("model", "version", "kind"),
    "failsoft_retries_total": ("rung",),
    "failsoft_retry_waiting": ("rung",),
    "failsoft_retry_overdue_seconds": ("rung",),
    "failsoft_dead_total": ("kind",),
    "failsoft_replayed_total": ("result",),
    "failsoft_breaker_state": ("model", "version", "state"),
    "failsoft_breaker_transitions_total": ("model", "version", "from", "to"),
    "failsoft_imputed_total": ("feature",),
    "failsoft_model_info": ("model", "version", "sha256"),
    "failsoft_rollbacks_total": ("model", "trigger"),
    "failsoft_transaction_seconds": (),
    "failsoft_batch_size": (),
    "failsoft_last_progress_timestamp_seconds": (),
    # Beyond the contract's list:
    "failsoft_kafka_connection_failures_total": ("cause",),
    "failsoft_node_sick": ("model", "version"),
    "failsoft_control_plane_up": (),
    "failsoft_fleet_workers": ("model", "version"),
    "failsoft_model_threads_lost_total": ("model", "version"),
    "failsoft_threads_lost": (),
    "failsoft_lane_stopped": ("topic", "lane", "cause"),
    "failsoft_model_restarts_total": ("model", "version", "why"),
    "failsoft_input_lag": ("topic",),
    "failsoft_clock_skew_seconds": (),
    "failsoft_missing_total": ("feature",),
    "failsoft_schema_lookups_total": ("result",),
    "failsoft_unread_events": (),
    "failsoft_unreadable_times_total": ("topic",),
}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def test_the_table_is_the_contracts_list() -> None:
    """The table has exactly the promised metrics with their labels (the labels of build_info are free)."""
    table = {d.name: d.labels for d in TABLE}
    assert table.pop("failsoft_build_info")
    assert table == PROMISED
    assert len(TABLE) == len(PROMISED) + 1


def test_names_follow_the_conventions() -> None:
    """Only counters end in _total, a unit is part of the name, and every metric has a help text."""
    for d in TABLE:
        assert d.name.endswith("_total") is (d.type is MetricType.COUNTER)
        assert d.name.endswith("_info") is (d.type is MetricType.INFO)
        assert d.name.endswith(f"_{d.unit}" if d.unit else d.name)
        assert bool(d.buckets) is (d.type is MetricType.HISTOGRAM)
        assert list(d.buckets) == sorted(set(d.buckets))
        assert set(d.values) <= set(d.labels)
        assert d.help.endswith(".")


def test_no_label_grows_with_traffic() -> None:
    """No label can hold an event's id, an offset, an error's text or a worker's id."""
    labels = {label for d in TABLE for label in d.labels}
    assert not labels & {"event", "event_id", "key", "offset", "partition", "message", "error", "worker", "trace_id"}


def test_a_batch_is_counted_at_once(metrics: Metrics, registry: CollectorRegistry) -> None:
    """The counts of batches add up, in one series for each combination of labels."""
    metrics.add("failsoft_answers_total", 250, source="primary", reason="none")
    metrics.add("failsoft_answers_total", 50, source="primary", reason="none")
    metrics.add("failsoft_answers_total", source="static", reason="timeout")
    primary = registry.get_sample_value("failsoft_answers_total", {"source": "primary", "reason": "none"})
    static = registry.get_sample_value("failsoft_answers_total", {"source": "static", "reason": "timeout"})
    assert (primary, static) == (300, 1)


def test_a_histogram_takes_many_observations_at_once(metrics: Metrics, registry: CollectorRegistry) -> None:
    """n events with one value count n times in its bucket and all above, and n times in the sum."""
    name = "failsoft_event_latency_seconds"
    metrics.observe(name, 0.02, 1000)  # exactly an edge: le means at most
    metrics.observe(name, 0.021, 10)
    metrics.observe(name, 99.0, 1)
    buckets = {le: registry.get_sample_value(f"{name}_bucket", {"le": le}) for le in ("0.01", "0.02", "0.03", "+Inf")}
    assert buckets == {"0.01": 0, "0.02": 1000, "0.03": 1010, "+Inf": 1011}
    assert registry.get_sample_value(f"{name}_count") == 1011
    assert registry.get_sample_value(f"{name}_sum") == pytest.approx(20 + 0.21 + 99)


def test_histograms_have_labels_too(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Each model version has a histogram of its own."""
    metrics.observe("failsoft_inference_seconds", 0.001, model="m", version="1")
    metrics.observe("failsoft_inference_seconds", 0.003, 2, model="m", version="2")
    counts = [
        registry.get_sample_value("failsoft_inference_seconds_count", {"model": "m", "version": v}) for v in ("1", "2")
    ]
    assert counts == [1, 2]


def test_exactly_one_breaker_state_is_1(metrics: Metrics, registry: CollectorRegistry) -> None:
    """After a transition the former state is 0."""
    metrics.breaker("m", "2", BreakerState.OPEN)
    metrics.breaker("m", "2", BreakerState.HALF_OPEN)
    values = {
        s: registry.get_sample_value("failsoft_breaker_state", {"model": "m", "version": "2", "state": s})
        for s in BreakerState
    }
    assert values == {s: float(s is BreakerState.HALF_OPEN) for s in BreakerState}


def test_a_gauge_can_be_read_at_the_scrape(metrics: Metrics, registry: CollectorRegistry) -> None:
    """A gauge with a callback has the value at the time of the scrape."""
    waiting = {"5s": 3.0}
    metrics.read("failsoft_retry_waiting", lambda: [({"rung": r}, n) for r, n in waiting.items()])
    waiting["5s"] = 4.0
    assert registry.get_sample_value("failsoft_retry_waiting", {"rung": "5s"}) == 4


def test_an_unset_gauge_is_absent(metrics: Metrics, registry: CollectorRegistry) -> None:
    """An unknown value is not 0: otherwise an alert on the last progress would fire at every start."""
    assert registry.get_sample_value("failsoft_last_progress_timestamp_seconds") is None
    metrics.set("failsoft_last_progress_timestamp_seconds", 1.7e9)
    assert registry.get_sample_value("failsoft_last_progress_timestamp_seconds") == 1.7e9


def test_counters_with_few_known_labels_start_at_zero(metrics: Metrics, registry: CollectorRegistry) -> None:
    """The first dead letter of a kind is a step from 0 to 1, which a rate shows."""
    assert [registry.get_sample_value("failsoft_dead_total", {"kind": k}) for k in Kind] == [0.0] * len(Kind)
    assert [registry.get_sample_value("failsoft_replayed_total", {"result": r}) for r in REPLAYED] == [0.0] * 5
    assert len(OUTCOMES) == 10


def test_an_unloaded_version_is_forgotten(metrics: Metrics, registry: CollectorRegistry) -> None:
    """The gauges and infos of a version are dropped when it is unloaded; its counters stay."""
    for version in ("1", "2"):
        metrics.inform("failsoft_model_info", model="m", version=version, sha256="ab")
        metrics.breaker("m", version, BreakerState.CLOSED)
        metrics.add("failsoft_inference_failures_total", 1, model="m", version=version, kind="timeout")
    metrics.forget(model="m", version="1")
    text = generate_latest(registry).decode()
    assert 'failsoft_model_info{model="m",sha256="ab",version="2"} 1.0' in text
    assert 'failsoft_model_info{model="m",sha256="ab",version="1"}' not in text
    assert 'failsoft_breaker_state{model="m",version="1"' not in text
    assert 'failsoft_inference_failures_total{kind="timeout",model="m",version="1"} 1.0' in text.replace(
        'model="m",version="1",kind="timeout"', 'kind="timeout",model="m",version="1"'
    )


@pytest.mark.parametrize(
    "labels", [{}, {"source": "primary"}, {"source": "primary", "reason": "none", "worker": "7"}, {"sauce": "x"}]
)
def test_wrong_labels_are_refused(metrics: Metrics, labels: dict[str, str]) -> None:
    """A missing, misspelled or unknown label is a mistake in code, and creates no series."""
    with pytest.raises(ValueError, match="failsoft_answers_total"):
        metrics.add("failsoft_answers_total", 1, **labels)


def test_wrong_names_types_and_amounts_are_refused(metrics: Metrics) -> None:
    """Only metrics of the table exist, each with the method of its type, and counters never go down."""
    with pytest.raises(KeyError):
        metrics.add("failsoft_unknown_total")
    with pytest.raises(ValueError, match="gauge, not a counter"):
        metrics.add("failsoft_last_progress_timestamp_seconds")
    with pytest.raises(ValueError, match="not a gauge"):
        metrics.read("failsoft_dead_total", list)
    with pytest.raises(ValueError, match="only goes up"):
        metrics.add("failsoft_dead_total", -1, kind="poison")
    with pytest.raises(ValueError, match="labels"):
        metrics.forget()


def test_a_label_named_from_can_be_given(metrics: Metrics, registry: CollectorRegistry) -> None:
    """``from`` is a Python keyword, and still a label."""
    labels = {"model": "m", "version": "2", "from": "closed", "to": "open"}
    metrics.add("failsoft_breaker_transitions_total", **labels)
    assert registry.get_sample_value("failsoft_breaker_transitions_total", labels) == 1


def test_the_openmetrics_text_is_valid(metrics: Metrics, registry: CollectorRegistry) -> None:
    """A strict OpenMetrics parser reads every family of the exposition."""
    metrics.inform("failsoft_build_info", version="1.0", python="3.11")
    metrics.inform("failsoft_model_info", model="m", version="1", sha256="ab")
    metrics.set("failsoft_last_progress_timestamp_seconds", 1.7e9)
    metrics.add("failsoft_imputed_total", 3, feature='odd "name"\n')
    metrics.observe("failsoft_batch_size", 250, 2)
    families = list(text_string_to_metric_families(openmetrics.generate_latest(registry).decode()))
    assert {f.name for f in families} == {d.name.removesuffix("_total").removesuffix("_info") for d in TABLE}


def test_a_name_cannot_be_registered_twice(metrics: Metrics, registry: CollectorRegistry) -> None:
    """A second set of metrics in one registry is refused, since each name must have one source."""
    with pytest.raises(ValueError, match="Duplicated"):
        Metrics(registry)


def test_threads_lose_no_count(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Counts from several threads all arrive, also while another thread scrapes."""

    def count() -> None:
        for i in range(500):
            metrics.add("failsoft_imputed_total", 2, feature=f"f{i % 50}")
            metrics.observe("failsoft_batch_size", 10, 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        generate_latest(registry)
    for thread in threads:
        thread.join()
    assert (
        sum(registry.get_sample_value("failsoft_imputed_total", {"feature": f"f{i}"}) or 0 for i in range(50)) == 4000
    )
    assert registry.get_sample_value("failsoft_batch_size_count") == 2000
