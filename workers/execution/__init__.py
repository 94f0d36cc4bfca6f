"""Runs calls by their deadlines, and bisects a batch that failed."""
