"""Runs a model in processes of its own, so that a crash or a hang of the model does not stop the worker."""
