"""docs/metrics.md: every metric, its labels, the values of the labels, and the buckets."""

from __future__ import annotations

from docs.markdown import code, page, table
from failsoft.workers.telemetry.metric_table import TABLE


def metrics_page() -> str:
    """docs/metrics.md."""
    return page(
        "# Metrics",
        "",
        "The metrics of a worker's `/metrics`. The table in `workers/telemetry/metrics.py` defines them and this page.",
        "Counters whose label values are few and known start at 0. A gauge whose value is not known yet is absent.",
        "",
        *table(
            ("metric", "type", "labels", "meaning"),
            ((code(d.name), d.type, ", ".join(map(code, d.labels)), d.help) for d in TABLE),
        ),
        "",
        "## Labels",
        "",
        *table(
            ("metric", "label", "values"),
            (
                (code(d.name), code(label), ", ".join(map(code, values)))
                for d in TABLE
                for label, values in d.values.items()
            ),
        ),
        "",
        "## Buckets",
        "",
        "The upper bounds of the buckets, besides `+Inf`. All events of a batch are observed with the same latency.",
        "",
        *table(
            ("metric", "buckets"),
            ((code(d.name), ", ".join(f"{edge:g}" for edge in d.buckets)) for d in TABLE if d.buckets),
        ),
    )
