"""The work behind each command; ``workers/commands`` reads flags and prints results."""
