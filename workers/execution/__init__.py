"""Runs calls within their deadlines, and bisects a batch that failed."""
