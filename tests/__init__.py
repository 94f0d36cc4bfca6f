"""Tests; ``tests.kit`` has what several of them share."""
