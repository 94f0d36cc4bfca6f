"""When to stop asking a model version, and when to try it again: one breaker a version, at home and for the fleet."""
