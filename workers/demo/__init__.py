"""The demo: a pipeline on one machine that fails and recovers before your eyes."""
