"""The schema registry: asks it, keeps what it said, and gives readers of the schemas to the lanes."""
