"""``python -m benchmarks``: failsoft against a hand-written loop and a Faust agent, on one machine, in one run."""
