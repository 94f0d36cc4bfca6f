"""The measured programs; each runs in a process of its own with all settings on its command line."""
