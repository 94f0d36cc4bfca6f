"""The demo: a pipeline on one machine whose model fails and recovers."""
