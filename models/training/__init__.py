"""Scripts that made the demo's models and make an example's. They need the extra ``training``; a worker does not."""
