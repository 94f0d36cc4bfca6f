"""Scoring: turns a batch of records into calls to models, and their results into verdicts. Pure."""
