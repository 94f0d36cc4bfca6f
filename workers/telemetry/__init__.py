"""Metrics, logs, reports of a batch, and the HTTP endpoints."""
