"""From the health of versions to a decision: keep, or go back."""
