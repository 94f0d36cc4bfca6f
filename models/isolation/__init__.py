"""A model in processes of its own, so that a crash or a hang is its own alone."""
