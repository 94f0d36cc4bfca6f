"""docs/metrics.md: every metric, its labels and the values that they may have."""

from __future__ import annotations

from docs.markdown import code, page, table
from failsoft.workers.telemetry.metrics import TABLE


def metrics_page() -> str:
    """docs/metrics.md."""
    return page(
        "# Metrics",
        "",
        "What a worker's `/metrics` shows. The table in `workers/telemetry/metrics.py` makes the series and this page.",
        "Counters whose labels are few and known start at 0; a gauge that is not known yet is absent.",
        "",
        *table(
            ("metric", "type", "labels", "what"),
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
        "Upper edges, beside `+Inf`. A batch's events share one observation of `n`.",
        "",
        *table(
            ("metric", "buckets"),
            ((code(d.name), ", ".join(f"{edge:g}" for edge in d.buckets)) for d in TABLE if d.buckets),
        ),
    )
