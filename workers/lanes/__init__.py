"""Lanes: each fetches, scores and commits the records of one partition index."""
