"""The versions that are loaded here, and the one that serves."""
