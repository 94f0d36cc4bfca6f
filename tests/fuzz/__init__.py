"""Fuzzing: mutated external input, and the rules that must hold for any input."""
