"""One worker process: composition, start and end, supervisor, restart policy."""
