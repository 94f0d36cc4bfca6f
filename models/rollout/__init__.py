"""Health of versions, and the decision which version of a model the fleet serves."""
