"""docs/reference/failure-kinds.md: the reasons for which an event has no answer from the primary, and what follows."""

from __future__ import annotations

from docs.markdown import code, page, table
from failsoft.schemas.failure import Kind


def failure_kinds_page() -> str:
    """docs/reference/failure-kinds.md."""
    return page(
        "# Failure kinds",
        "",
        "Why an event has no answer from the primary. The kind is an answer's `reason`, a retry's and a dead letter's",
        "header `failsoft-error-kind`, and `kind` in metrics and logs. Generated from `schemas/failure.py`.",
        "",
        *table(
            ("kind", "meaning", "retried", "counts against the breaker", "dead letter"),
            ((code(k), k.meaning, _yes_no(k.retried), _yes_no(k.trips_breaker), _letter(k)) for k in Kind),
        ),
        "",
        "A batch that fails as a whole is split until the failing rows are alone, so one row does not fail the others.",
        "While a breaker is open, the ladder of retries waits.",
    )


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _letter(kind: Kind) -> str:
    if kind.dead_at_once:
        return "at once"
    return "after the last retry" if kind.retried else "no"
