"""Metrics, logs, batch reports and the HTTP endpoints of a worker."""
