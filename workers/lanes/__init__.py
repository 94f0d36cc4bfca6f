"""A lane: fetch, score, one transaction."""
