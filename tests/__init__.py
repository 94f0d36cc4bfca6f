"""Tests; ``tests.kit`` holds what several of them share."""
