"""Fuzzing: what comes from outside, mutated, and what must hold of it whatever it is."""
