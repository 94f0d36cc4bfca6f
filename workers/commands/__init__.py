"""The commands, one file for each group. They read flags and print results; ``workers/operations`` does the work."""
