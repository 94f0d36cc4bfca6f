"""Faust: the fleet's tables, their owner, and the sync between them and a worker."""
