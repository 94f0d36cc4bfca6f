"""The demo's rule: what is left to say of a car loan when no model answers."""

from __future__ import annotations

from collections.abc import Mapping

# Fitted by eye to the share repaid in eighths of the training rows: 3 % of those with a ratio around 0.30, 17 % around
# 0.40, 46 % around 0.53, 64 % around 0.63, and about 70 % beyond. In these (synthetic) data a higher ratio goes with
# more repayment, which is not what a bank would expect of its own.
NONE_REPAID_AT = 0.28
SLOPE = 1.85
LOWEST, HIGHEST = 0.03, 0.70


def by_ratio(features: Mapping[str, object]) -> dict[str, object] | None:
    """The probability of repayment by ``debt_to_income_ratio`` alone; None, so no answer, if it is not there."""
    ratio = features.get("debt_to_income_ratio")
    if not isinstance(ratio, (int, float)):
        return None
    score = min(max((ratio - NONE_REPAID_AT) * SLOPE, LOWEST), HIGHEST)
    return {"score": score, "label": int(score >= 0.5), "confidence": max(score, 1 - score)}
