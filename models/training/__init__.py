"""Scripts that made the demo's models. They need the extra ``training``; a worker does not."""
