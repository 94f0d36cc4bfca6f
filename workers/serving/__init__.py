"""Which model versions a worker has loaded, and which version of each model serves."""
