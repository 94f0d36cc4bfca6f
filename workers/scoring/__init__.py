"""A batch of records becomes calls to models, and then verdicts. Pure."""
