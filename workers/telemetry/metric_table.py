"""The metrics, as one table. The Prometheus series and the page docs/metrics.md are made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.failure import Kind
from failsoft.schemas.fleet.rollout import Trigger
from failsoft.schemas.prediction import Source
from failsoft.topics.connection.causes import Obstacle


class MetricType(StrEnum):
    """The Prometheus metric types in use. An info is a gauge that is always 1: its labels carry the information."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric.

    Attributes:
        name: the name of the series.
        type: the metric type.
        help: the text that Prometheus shows.
        labels: the names of the labels.
        unit: the unit, or "".
        buckets: of a histogram: the upper bounds of the buckets, but for +Inf.
        values: the possible values of a label, by label, for labels with a closed set of values.
    """

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)


# The label `outcome` of `failsoft_events_total`: the outcome of reading one record.
OUTCOMES = (
    "answered",
    "provisional",
    "corrected",
    "confirmed",
    "dead",
    "unchanged",
    "waiting",
    "redriven",
    "repeated",
    "ignored",
)
# The label `result` of `failsoft_replayed_total`: the result of replaying one dead letter.
REPLAYED = ("answered", "corrected", "retried", "dead", "unchanged")
# The label `result` of `failsoft_schema_lookups_total`: the result of one look-up of a schema.
LOOKED_UP = ("found", "missing", "unusable", "unavailable", "breaker_open", "another")
NO_REASON = "none"  # the label `reason` when there is none: Prometheus treats an empty label as a missing one

_KINDS, _STATES = tuple(Kind), tuple(BreakerState)
# Dense around the goals (60 ms at the 99th percentile; commits of 9, 32 and 75 ms were measured), sparse up to the
# 15 s after which the broker aborts a transaction.
_COMMIT = (0.002, 0.005, 0.01, 0.02, 0.03, 0.045, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
# A small model takes under a millisecond for a batch. Deadlines are some hundred milliseconds, at most seconds.
_INFERENCE = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0)
# From one event, in light traffic, to the largest batch (4,000), and one bucket above it.
_BATCH = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2000, 4000, 8000)

TABLE: tuple[Definition, ...] = (
    Definition(
        "failsoft_events_total",
        MetricType.COUNTER,
        "Records read, by outcome: answered (first answer, final), provisional (first answer, a correction may "
        "follow), corrected (a second answer, by the primary), confirmed (the provisional answer made final), dead "
        "(a dead letter without a second answer), unchanged (moved to the next rung, or no further answer), waiting "
        "(no answer yet: its schema is not known and the registry does not answer, so it is on the first rung), "
        "redriven (a dead letter that another tool sent back, which goes on as a replay), repeated (one that was "
        "replayed already, and is skipped), ignored (a tombstone).",
        ("topic", "outcome"),
        values={"outcome": OUTCOMES},
    ),
    Definition(
        "failsoft_answers_total",
        MetricType.COUNTER,
        'Answers written, by source and by the failure kind because of which the primary did not answer ("none" if it '
        "did).",
        ("source", "reason"),
        values={"source": tuple(Source), "reason": (NO_REASON, *_KINDS)},
    ),
    Definition(
        "failsoft_event_latency_seconds",
        MetricType.HISTOGRAM,
        "Time from fetching the oldest event of a batch to committing its answers.",
        unit="seconds",
        buckets=_COMMIT,
    ),
    Definition(
        "failsoft_inference_seconds",
        MetricType.HISTOGRAM,
        "Time of a call of a model, one observation for each batch.",
        ("model", "version"),
        unit="seconds",
        buckets=_INFERENCE,
    ),
    Definition(
        "failsoft_inference_failures_total",
        MetricType.COUNTER,
        "Rows that a model failed to answer, by failure kind.",
        ("model", "version", "kind"),
        values={"kind": _KINDS},
    ),
    Definition(
        "failsoft_model_threads_lost_total",
        MetricType.COUNTER,
        "Runs that ignored their deadline, so that their thread was lost.",
        ("model", "version"),
    ),
    Definition(
        "failsoft_threads_lost",
        MetricType.GAUGE,
        "Threads lost to runs that ignored their deadline and have not returned. The worker restarts when there are "
        "more of them than threads for models.",
    ),
    Definition(
        "failsoft_model_restarts_total",
        MetricType.COUNTER,
        'Restarts of processes of models with isolation = "process", by cause: crashed (a signal, or an unexpected '
        "exit), memory (over the card's limit), timeout (killed, because a run did not stop at its deadline), load (it "
        "could not be started or loaded again).",
        ("model", "version", "why"),
        values={"why": ("crashed", "memory", "timeout", "load")},
    ),
    Definition("failsoft_input_lag", MetricType.GAUGE, "Records of an input topic not committed yet.", ("topic",)),
    Definition("failsoft_retries_total", MetricType.COUNTER, "Records written to a rung of the ladder.", ("rung",)),
    Definition(
        "failsoft_retry_waiting", MetricType.GAUGE, "Records on a rung that are not read yet (its lag).", ("rung",)
    ),
    Definition(
        "failsoft_unread_events",
        MetricType.GAUGE,
        "Events that wait unanswered on the ladder because their schema is not known and the registry does not answer, "
        "of those that this worker has met (at most 100,000).",
    ),
    Definition(
        "failsoft_retry_overdue_seconds",
        MetricType.GAUGE,
        "For how long a rung's first record has been due; 0 if it is not due.",
        ("rung",),
        unit="seconds",
    ),
    Definition("failsoft_dead_total", MetricType.COUNTER, "Dead letters written.", ("kind",), values={"kind": _KINDS}),
    Definition(
        "failsoft_replayed_total",
        MetricType.COUNTER,
        "Replayed dead letters, by result: answered (a first answer), corrected (a second answer, by the primary), "
        "retried (written to the ladder again), dead (a dead letter again), unchanged (it had its final answer).",
        ("result",),
        values={"result": REPLAYED},
    ),
    Definition(
        "failsoft_breaker_state",
        MetricType.GAUGE,
        "1 for the state that this worker's breaker is in, 0 for the others.",
        ("model", "version", "state"),
        values={"state": _STATES},
    ),
    Definition(
        "failsoft_breaker_transitions_total",
        MetricType.COUNTER,
        "Transitions of this worker's breaker (half_open to half_open: probes were lost).",
        ("model", "version", "from", "to"),
        values={"from": _STATES, "to": _STATES},
    ),
    Definition(
        "failsoft_schema_lookups_total",
        MetricType.COUNTER,
        "Look-ups of schemas in the schema registry, by result: found, missing (the registry answers, and has none), "
        "unusable (of a kind or size that is not read), unavailable (no answer of a registry in time), breaker_open "
        "(not asked, because the registry's breaker is open), another (the registry has another schema for an id than "
        "before; the first one stays).",
        ("result",),
        values={"result": LOOKED_UP},
    ),
    Definition(
        "failsoft_node_sick",
        MetricType.GAUGE,
        "1 while only this worker fails with a model version that other workers run without failures.",
        ("model", "version"),
    ),
    Definition(
        "failsoft_control_plane_up",
        MetricType.GAUGE,
        "1 while this worker reads the fleet's breakers, 0 while it uses its local breakers only.",
    ),
    Definition(
        "failsoft_lane_stopped",
        MetricType.GAUGE,
        "1 for each lane of this worker that is stopped, with the topic and the cause; the log says what mends it. "
        "All other lanes go on.",
        ("topic", "lane", "cause"),
    ),
    Definition("failsoft_imputed_total", MetricType.COUNTER, "Missing values that were imputed.", ("feature",)),
    Definition(
        "failsoft_missing_total",
        MetricType.COUNTER,
        'Missing values that were handed to a model as NaN (`impute = "nan"`).',
        ("feature",),
    ),
    Definition(
        "failsoft_unreadable_times_total",
        MetricType.COUNTER,
        "Events whose own time is neither ISO 8601 nor an epoch number, so that the record's time stands in. Counted "
        "when they are first read; an event without a time is not counted.",
        ("topic",),
    ),
    Definition(
        "failsoft_fleet_workers",
        MetricType.GAUGE,
        "Workers of the fleet that serve a version, by the fleet's rollout row. Several versions of one model for "
        "longer than a switch takes are a version skew.",
        ("model", "version"),
    ),
    Definition(
        "failsoft_model_info", MetricType.INFO, "A model version that is loaded.", ("model", "version", "sha256")
    ),
    Definition(
        "failsoft_rollbacks_total",
        MetricType.COUNTER,
        "Rollbacks to another version, by trigger; counted by the owner.",
        ("model", "trigger"),
        values={"trigger": (Trigger.AUTOMATIC, Trigger.OPERATOR)},
    ),
    Definition(
        "failsoft_transaction_seconds",
        MetricType.HISTOGRAM,
        "Time of a worker's transaction, also of one that only writes crash markers.",
        unit="seconds",
        buckets=_COMMIT,
    ),
    Definition(
        "failsoft_batch_size",
        MetricType.HISTOGRAM,
        "Records in a lane's batch; a transaction may have several.",
        buckets=_BATCH,
    ),
    Definition(
        "failsoft_kafka_connection_failures_total",
        MetricType.COUNTER,
        "Connections to brokers that could not be set up. docs/security.md has the causes.",
        ("cause",),
        values={"cause": tuple(Obstacle)},
    ),
    Definition(
        "failsoft_last_progress_timestamp_seconds",
        MetricType.GAUGE,
        "Unix time of the last commit, or when all lanes last waited for records.",
        unit="seconds",
    ),
    Definition(
        "failsoft_clock_skew_seconds",
        MetricType.GAUGE,
        "Seconds by which this host's clock is ahead of the broker's, which retries go by. Absent until measured.",
        unit="seconds",
    ),
    Definition("failsoft_build_info", MetricType.INFO, "The program that is running.", ("version", "python")),
)
