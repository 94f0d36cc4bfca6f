"""Values in configuration files: durations, sizes, the meaning of keys, and the refusal of mistakes."""
