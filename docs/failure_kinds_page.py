"""docs/reference/failure-kinds.md: why an event has no answer from the primary, and what follows."""

from __future__ import annotations

from docs.markdown import code, page, table
from failsoft.schemas.failure import Kind


def failure_kinds_page() -> str:
    """docs/reference/failure-kinds.md."""
    return page(
        "# Failure kinds",
        "",
        "Why an event has no answer from the primary. An answer has the kind as its `reason`, a retry and a dead",
        "letter in the header `failsoft-error-kind`, and metrics and logs as `kind`. Made from `schemas/failure.py`.",
        "",
        *table(
            ("kind", "meaning", "retried", "counts against the breaker", "dead letter"),
            ((code(k), k.meaning, _yes(k.retried), _yes(k.trips_breaker), _letter(k)) for k in Kind),
        ),
        "",
        "A batch that fails as a whole is split until the failing rows stand alone: one row does not fail the others.",
        "While a breaker is open the ladder of retries waits.",
    )


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _letter(kind: Kind) -> str:
    if kind.dead_at_once:
        return "at once"
    return "after the last retry" if kind.retried else "no"
