"""One worker process: composition, start and stop, supervisor, restart policy."""
