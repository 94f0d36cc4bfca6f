"""The demo's rule: scores a car loan when no model can answer."""

from __future__ import annotations

from collections.abc import Mapping

# Fitted by eye to the share of repaid loans in eighths of the training rows: 3 % at a ratio around 0.30, 17 % around
# 0.40, 46 % around 0.53, 64 % around 0.63, and about 70 % above. In this synthetic data a higher ratio means more
# repayment; a bank would expect the opposite of its own data.
NONE_REPAID_AT = 0.28
SLOPE = 1.85
LOWEST, HIGHEST = 0.03, 0.70


def by_ratio(features: Mapping[str, object]) -> dict[str, object] | None:
    """The probability of repayment from ``debt_to_income_ratio`` alone; None (no answer) if the feature is missing."""
    ratio = features.get("debt_to_income_ratio")
    if not isinstance(ratio, (int, float)):
        return None
    score = min(max((ratio - NONE_REPAID_AT) * SLOPE, LOWEST), HIGHEST)
    return {"score": score, "label": int(score >= 0.5), "confidence": max(score, 1 - score)}
