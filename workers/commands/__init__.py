"""The commands, a group a file: they read flags and show results; what they do is done elsewhere."""
