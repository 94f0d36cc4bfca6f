"""When to stop calling a model version and when to try it again: one local and one fleet breaker for each version."""
