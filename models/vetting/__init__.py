"""Vetting: a version is checked before it serves."""
